"""The options of a run of `tokbench prune`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokbench.data.reading import ReadOptions

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PruneRequest:
    """The options of `tokbench prune`.

    batches: batch sizes for timing, None for those of the kind and device, () for no timing. The other fields are the
    options of the command, see there.
    """

    model: str
    data: str
    device: str
    root: Path | None
    limit: int | None
    reading: ReadOptions
    batches: tuple[int, ...] | None
    repetitions: int
    tries: int
    kernel: str
    round_to: int
    rates: str | None
    allow_download: bool
