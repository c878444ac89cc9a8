"""The measurements of one method on one classifier at one keep."""

from __future__ import annotations

from dataclasses import dataclass

from tokbench.pruning.result import Estimate, Speedup, TimedRow
from tokbench.validate import Count, Number, Positive


@dataclass(frozen=True)
class BatchTiming:
    """Timing at one batch size.

    speedup: relative to the full network with its faster kernel (best_kernel). speedup_same_kernel: relative to the
    full network with the row's kernel. selector_ms: milliseconds per pass that selecting and merging tokens take.
    peak_mib, whole_peak_mib: peak memory, None where the device does not report it. tries: number of timing runs, which
    older files do not record.
    """

    batch: Positive
    best_kernel: str
    speedup: Speedup
    speedup_same_kernel: Speedup
    selector_ms: Number
    peak_mib: Number | None = None
    whole_peak_mib: Number | None = None
    tries: Count = 1

    @property
    def speedups(self) -> tuple[Speedup, ...]:
        return (self.speedup, self.speedup_same_kernel)


@dataclass
class ClassifierRow(TimedRow):
    """The measurements of a method at one keep ratio.

    right: the correctly classified images, as `packed` returns them. tokens: the numbers of tokens that enter and leave
    each block. gflops: GFLOPs per image by the formula; counted_gflops: by PyTorch's counter. weights: hashes by file.
    pace: timings, sorted by batch size. training_seconds, training_images: None where the training is unknown.
    """

    title: str
    network: str
    top1: Estimate
    top5: Estimate
    agreement: Estimate
    top1_gap: Estimate
    top5_gap: Estimate
    right: str
    tokens: list[tuple[Count, Count]]
    gflops: Number
    whole_gflops: Number
    counted_gflops: Number
    training_seconds: int | float | None
    training_images: Count | None
    training_profile: str | None
    weights: dict[str, str]
    pace: list[BatchTiming]
