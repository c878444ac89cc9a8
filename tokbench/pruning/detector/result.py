"""The measurements of one way to run a detector."""

from __future__ import annotations

from dataclasses import dataclass

from tokbench.pruning.result import Estimate, Speedup, TimedRow
from tokbench.validate import Count, Number, Positive


@dataclass(frozen=True)
class DetectorTiming:
    """Timing of the whole detector at one batch size, against the full one. peak_mib, whole_peak_mib: peak memory, None
    where the device does not report it. tries: number of timing runs."""

    batch: Positive
    speedup: Speedup
    peak_mib: Number | None = None
    whole_peak_mib: Number | None = None
    tries: Count = 1

    @property
    def speedups(self) -> tuple[Speedup, ...]:
        return (self.speedup,)


@dataclass
class DetectorRow(TimedRow):
    """A row of a result file.

    network: name of the detector. ap50: average precision at an overlap of 0.5; ap: mean over overlaps of 0.5 to 0.95.
    ap50_gap, ap_gap: their paired differences to the full detector. without: both numbers without each group of images
    (`average_precision.GROUPS`), from which the interval of a difference of two rows follows. tokens: updated by each
    layer of the encoder. gflops: of one image. weights: hashes by file if the detector is not that of the table.
    training_seconds, training_images, training_profile: of such a detector, else 0, 0 and None. pace: timings, sorted
    by batch size.
    """

    title: str
    network: str
    ap50: Estimate
    ap: Estimate
    ap50_gap: Estimate
    ap_gap: Estimate
    without: dict[str, list[Number]]
    tokens: list[Count]
    gflops: Number
    whole_gflops: Number
    training_seconds: int | float | None
    training_images: Count | None
    training_profile: str | None
    weights: dict[str, str]
    pace: list[DetectorTiming]
