"""Voxels: how they are passed to tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokbench.data.stream import ImageStream
from tokbench.metrics.base import Metric
from tokbench.modalities.base import Modality, PaddedPlan, round_up
from tokbench.modalities.checks import ItemChecks
from tokbench.tokenizers.spec import TokenizerSpec


class Voxels(Modality):
    """Coloured voxels, padded with empty ones to the multiple that a tokenizer requires."""

    name = "shape"
    noun = "shape"

    def plan(self, spec: TokenizerSpec, shape: Sequence[int]) -> PaddedPlan:
        channels, *sides = shape
        padded = (channels, *(round_up(side, spec.size or spec.multiple) for side in sides))
        return PaddedPlan(tuple(shape), padded, 0.0)

    def describe_data(self, stream: ImageStream) -> dict[str, Any]:
        side = (stream.shape or (4, 0, 0, 0))[-1]
        return {"width": side, "height": side, "modality": self.name, "extent": f"v{side}"}

    def output_checks(self, spec: TokenizerSpec, paired: bool) -> Metric:
        return ItemChecks(spec, self.noun)
