"""The measurements of one pose lifter."""

from __future__ import annotations

from dataclasses import dataclass

from tokbench.pruning.result import BatchTiming, Estimate, NetworkRow
from tokbench.validate import Count, Number


@dataclass(kw_only=True)
class PoseRow(NetworkRow):
    """A row of a result file.

    mpjpe, mpjpe_gap: mean per-joint position error in millimetres, and its paired difference to the full network.
    errors: of each sequence in millimetres, to a thousandth, from which the interval of a difference of two rows
    follows. frames: that enter each pair of blocks.
    """

    mpjpe: Estimate
    mpjpe_gap: Estimate
    errors: list[Number]
    frames: list[Count]
    pace: list[BatchTiming]
