"""The measurements of one method on one classifier of clips at one keep."""

from __future__ import annotations

from dataclasses import dataclass, field

from tokbench.pruning.result import Estimate, Speedup
from tokbench.validate import Count, Number, Positive


@dataclass(frozen=True)
class ClipTiming:
    """Timing at one batch size, with the time of clustering.

    speedup: over the network with all tokens. selector_ms: milliseconds of a pass that choosing and merging tokens
    takes. tries: number of timing runs.
    """

    batch: Positive
    speedup: Speedup
    selector_ms: Number
    tries: Count = 1


@dataclass
class ClipRow:
    """A row of a result file.

    network: the network that was reduced. top1, gap, agreement: accuracy, its paired difference to the network with all
    tokens, and the share of clips of the same most likely class. right: the correctly classified clips, as
    `tokbench.pruning.result.packed` returns them. cameras: accuracy by motion of the camera, if the data state it.
    tokens, most_tokens: tokens of a clip in the last block, the mean and the maximum over the clips. gflops: of one
    clip. training_seconds: 0 for methods without training.
    """

    title: str
    network: str
    top1: Estimate
    gap: Estimate
    agreement: Estimate
    right: str
    cameras: dict[str, Estimate]
    tokens: Number
    most_tokens: Positive
    gflops: Number
    whole_gflops: Number
    training_seconds: Number
    weights: dict[str, str]
    pace: list[ClipTiming] = field(default_factory=list)
