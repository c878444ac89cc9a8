"""Waveforms: how they are passed to tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokbench.data.stream import ImageStream
from tokbench.metrics.base import Metric
from tokbench.modalities.base import Modality, PaddedPlan, round_up
from tokbench.modalities.checks import ItemChecks
from tokbench.tokenizers.spec import TokenizerSpec

SILENCE = 0.5
"""The stored value of a sample of 0."""


class Waveforms(Modality):
    """Waveforms, padded with silence to the multiple of samples that a tokenizer requires."""

    name = "sound"
    noun = "recording"

    def plan(self, spec: TokenizerSpec, shape: Sequence[int]) -> PaddedPlan:
        channels, samples = shape
        return PaddedPlan((channels, samples), (channels, round_up(samples, spec.multiple)), SILENCE)

    def describe_data(self, stream: ImageStream) -> dict[str, Any]:
        channels, samples = stream.shape or (0, 0)
        facts = {"width": samples, "height": channels, "modality": self.name, "side": stream.side}
        return facts | {"extent": f"{stream.side}hz-{samples}" + (f"-c{channels}" if channels > 1 else "")}

    def output_checks(self, spec: TokenizerSpec, paired: bool) -> Metric:
        return ItemChecks(spec, self.noun)
