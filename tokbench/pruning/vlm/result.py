"""The measurements of one method on one vision-language model at one keep."""

from __future__ import annotations

from dataclasses import dataclass, field

from tokbench.pruning.result import Estimate, Speedup, TimedRow
from tokbench.validate import Count, Number, Positive


@dataclass(frozen=True)
class TypeAccuracy:
    """The accuracy on one type of questions.

    gap: the paired difference to the model with all tokens. whole: its accuracy. floor: the share of the most frequent
    answer.
    """

    accuracy: Estimate
    gap: Estimate
    whole: Number
    floor: Number


@dataclass(frozen=True)
class VlmTiming:
    """Speed-ups over the model with all tokens, at batch 1.

    prefill: of the decoder, with what chooses tokens. decode: of one generated token. total: from the pixels to the
    answer and its end. selector_ms: milliseconds of a prefill that choosing and merging tokens takes. tries: number of
    timing runs.
    """

    prefill: Speedup
    decode: Speedup
    total: Speedup
    selector_ms: Number
    tries: Count = 1

    @property
    def speedups(self) -> tuple[Speedup, ...]:
        return (self.prefill, self.decode, self.total)


@dataclass
class VlmRow(TimedRow):
    """A row of a result file.

    accuracy: share of correct answers; gap: its paired difference to the model with all tokens. right: the correct
    answers, as `tokbench.pruning.result.packed` returns them. applied: share of visual tokens that enter a layer, mean
    over layers and questions. visual, tokens: mean numbers of visual tokens and of all tokens that enter each layer.
    side: of the images that the encoder gets, in pixels. gflops: of the prefill, mean over questions. kv_bytes: of the
    KV cache after the prefill, mean over questions. parameters_seconds: time to choose the method's parameters.
    weights: empty, since no method trains a network. pace: at batch 1.
    """

    title: str
    accuracy: Estimate
    gap: Estimate
    types: dict[str, TypeAccuracy]
    right: str
    applied: Number
    visual: list[Number]
    tokens: list[Number]
    side: Positive
    gflops: Number
    whole_gflops: Number
    kv_bytes: Number
    whole_kv_bytes: Number
    parameters_seconds: Number
    parameters: dict[str, Number]
    pace: VlmTiming | None = None
    weights: dict[str, str] = field(default_factory=dict)

    @property
    def timings(self) -> list[VlmTiming]:
        return [] if self.pace is None else [self.pace]

    def timing(self, batch: int) -> VlmTiming | None:
        return self.pace

    def add_timing(self, timing: VlmTiming) -> None:
        self.pace = timing
