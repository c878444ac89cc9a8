"""The measurements of one way to run a classifier of clips."""

from __future__ import annotations

from dataclasses import dataclass

from tokbench.pruning.result import Estimate, NetworkRow, SelectorTiming
from tokbench.validate import Number, Positive


@dataclass(kw_only=True)
class ClipRow(NetworkRow):
    """A row of a result file.

    top1, top1_gap, agreement: accuracy, its paired difference to the full network, and the share of clips of the same
    most likely class. right: the correctly classified clips, as `tokbench.pruning.result.packed` returns them. cameras:
    accuracy by motion of the camera, if the data state it. tokens, most_tokens: tokens of a clip in the last block, the
    mean and the maximum over the clips.
    """

    top1: Estimate
    top1_gap: Estimate
    agreement: Estimate
    right: str
    cameras: dict[str, Estimate]
    tokens: Number
    most_tokens: Positive
    pace: list[SelectorTiming]
