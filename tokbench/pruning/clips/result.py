"""The measurements of one way to run a classifier of clips."""

from __future__ import annotations

from dataclasses import dataclass

from tokbench.pruning.result import Estimate, Speedup, TimedRow
from tokbench.validate import Count, Number, Positive


@dataclass(frozen=True)
class ClipTiming:
    """Timing at one batch size, with the time of choosing or making tokens.

    speedup: over the full network. selector_ms: milliseconds of a pass that choosing or making tokens takes. tries:
    number of timing runs.
    """

    batch: Positive
    speedup: Speedup
    selector_ms: Number
    tries: Count = 1

    @property
    def speedups(self) -> tuple[Speedup, ...]:
        return (self.speedup,)


@dataclass
class ClipRow(TimedRow):
    """A row of a result file.

    network: the network that was run. top1, top1_gap, agreement: accuracy, its paired difference to the full network,
    and the share of clips of the same most likely class. right: the correctly classified clips, as
    `tokbench.pruning.result.packed` returns them. cameras: accuracy by motion of the camera, if the data state it.
    tokens, most_tokens: tokens of a clip in the last block, the mean and the maximum over the clips. gflops: of one
    clip. weights: hashes by file if the network is not that of the table. training_seconds, training_images,
    training_profile: of such a network, else 0, 0 and None. pace: timings, sorted by batch size.
    """

    title: str
    network: str
    top1: Estimate
    top1_gap: Estimate
    agreement: Estimate
    right: str
    cameras: dict[str, Estimate]
    tokens: Number
    most_tokens: Positive
    gflops: Number
    whole_gflops: Number
    training_seconds: int | float
    training_images: Count
    training_profile: str | None
    weights: dict[str, str]
    pace: list[ClipTiming]
