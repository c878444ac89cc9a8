"""The measurements of one way to run a detector."""

from __future__ import annotations

from dataclasses import dataclass

from tokbench.pruning.result import BatchTiming, Estimate, NetworkRow
from tokbench.validate import Count, Number


@dataclass(kw_only=True)
class DetectorRow(NetworkRow):
    """A row of a result file.

    ap50: average precision at an overlap of 0.5; ap: mean over overlaps of 0.5 to 0.95. ap50_gap, ap_gap: their paired
    differences to the full detector. without: both numbers without each group of images (`average_precision.GROUPS`),
    from which the interval of a difference of two rows follows. tokens: updated by each layer of the encoder.
    """

    ap50: Estimate
    ap: Estimate
    ap50_gap: Estimate
    ap_gap: Estimate
    without: dict[str, list[Number]]
    tokens: list[Count]
    pace: list[BatchTiming]
