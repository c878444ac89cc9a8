"""The test sequences of pose lifters, which are drawn by code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor

from tokbench.io.hashing import code_of
from tokbench.nn.pose_lifter import TRAINING_SEEDS
from tokbench.nn.skeleton import draw_sequences
from tokbench.paths import PACKAGE
from tokbench.protocol.protocol import Protocol

SEQUENCES = 500
"""Default number of test sequences."""

FIRST_SEED = TRAINING_SEEDS
"""Seed of the first test sequence. Training draws smaller seeds, so it sees none of these."""

CHUNK = 25
"""Sequences per batch when measuring errors."""


@dataclass(frozen=True)
class PoseSequences:
    """The first `limit` test sequences of a number of frames."""

    limit: int
    frames: int
    name: str = "skeleton"
    sampling: str = "first"
    protocol: Protocol | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    @property
    def sha256(self) -> str:
        """SHA-256 of the code and the arguments that determine the sequences."""
        made = f"{code_of(PACKAGE / 'nn' / 'skeleton.py')} {FIRST_SEED} {self.limit} {self.frames}"
        return hashlib.sha256(made.encode()).hexdigest()

    def draw(self, start: int, count: int) -> tuple[Tensor, Tensor]:
        """Return 2-D joints (B, F, 17, 2) and 3-D joints (B, F, 17, 3) in metres of B = `count` sequences."""
        return draw_sequences(range(FIRST_SEED + start, FIRST_SEED + start + count), self.frames)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all sequences in order, as `draw` returns them."""
        for start in range(0, self.limit, CHUNK):
            yield self.draw(start, min(CHUNK, self.limit - start))
