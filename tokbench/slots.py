"""Slots: places for N samples of each generator, beside a reference that they are not paired with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tokbench.dataset import Dataset, Seen
from tokbench.errors import UsageError
from tokbench.halves import pairs
from tokbench.protocol import Protocol


@dataclass(frozen=True)
class Turn:
    """Some of the places: positions (B,), names, and what tells a journal that they are the same as before.

    shape: height and width that samples must have, None where nothing says.
    """

    index: Tensor
    names: list[str]
    digests: list[str]
    shape: tuple[int, int] | None = None


@dataclass
class Slots:
    """What a pass over samples runs through in place of a `Dataset`, whose fields it has.

    reference: the images whose distribution the samples' is compared with, or None where a statistics file stands for
    them; then `name` is that file's and `key` its hash. After a pass `shape` is that of the samples.
    """

    name: str
    protocol: Protocol
    count: int
    reference: Dataset | None = None
    shape: tuple[int, int] | None = None
    seen: Seen = field(default_factory=Seen, repr=False)
    key: str = ""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError("--limit must be at least 1")

    def __len__(self) -> int:
        return self.count

    @property
    def names(self) -> list[str]:
        return [f"{position:08d}" for position in range(self.count)]

    @property
    def sha256(self) -> str:
        """Of the references that were read, or of the file that stands for them."""
        return self.reference.sha256 if self.reference is not None else self.key

    @property
    def bad(self) -> list[tuple[str, str]]:
        """References that cannot be read."""
        return self.reference.bad if self.reference is not None else []

    @property
    def size(self) -> int | None:
        return self.reference.size if self.reference is not None else None

    @property
    def own_size(self) -> int | None:
        return self.reference.own_size if self.reference is not None else None

    @property
    def left_out(self) -> dict[str, int]:
        """Of files beside the references, by suffix."""
        return self.reference.left_out if self.reference is not None else {}

    @property
    def enlarged(self) -> int:
        return self.reference.enlarged if self.reference is not None else 0

    @property
    def available(self) -> int:
        """Of the references."""
        return len(self.reference) if self.reference is not None else 0

    @property
    def limited(self) -> int | None:
        """N, unless it is that of the references."""
        return self.count if self.count != self.available else None

    @property
    def readable(self) -> int:
        return self.count

    @property
    def references(self) -> int | None:
        """How many images the samples are compared with; None where only a statistics file stands for them."""
        return self.reference.readable if self.reference is not None else None

    @property
    def pairs(self) -> int:
        """Of halves: as many as the larger set is given."""
        return pairs(max(self.count, self.available))

    def batches(self, batch_size: int, share: Callable[[list[range]], list[range]] = lambda spans: spans) -> Turns:
        """All places, `batch_size` at a time; `share` chooses among the spans."""
        starts = range(0, self.count, batch_size)
        return Turns(self, share([range(start, min(start + batch_size, self.count)) for start in starts]))


class Turns:
    """Spans of places, one after the other."""

    def __init__(self, slots: Slots, spans: Sequence[range]) -> None:
        self._slots, self._spans = slots, spans
        self.total, self.done = sum(len(span) for span in spans), 0

    def __iter__(self) -> Iterator[Turn]:
        for span in self._spans:
            self.done += len(span)
            names = [f"{position:08d}" for position in span]
            yield Turn(torch.tensor(list(span)), names, names, self._slots.shape)

    def ahead(self) -> None:
        """There is nothing to decode before its time."""
