"""The measurements of one method on one classifier at one keep."""

from __future__ import annotations

from dataclasses import dataclass

from tokbench.pruning.result import Estimate, NetworkRow, SelectorTiming, Speedup
from tokbench.validate import Count, Number


@dataclass(frozen=True, kw_only=True)
class ClassifierTiming(SelectorTiming):
    """Timing at one batch size.

    speedup: relative to the full network with its faster kernel (best_kernel). speedup_same_kernel: relative to the
    full network with the row's kernel.
    """

    best_kernel: str
    speedup_same_kernel: Speedup

    @property
    def speedups(self) -> tuple[Speedup, ...]:
        return (self.speedup, self.speedup_same_kernel)


@dataclass(kw_only=True)
class ClassifierRow(NetworkRow):
    """The measurements of a method at one keep ratio.

    right: the correctly classified images, as `packed` returns them. tokens: the numbers of tokens that enter and leave
    each block. gflops: GFLOPs per image by the formula; counted_gflops: by PyTorch's counter.
    """

    top1: Estimate
    top5: Estimate
    agreement: Estimate
    top1_gap: Estimate
    top5_gap: Estimate
    right: str
    tokens: list[tuple[Count, Count]]
    counted_gflops: Number
    pace: list[ClassifierTiming]
