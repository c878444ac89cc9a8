"""Images: pixels (3, H, W)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tokbench.data.stream import ImageStream
from tokbench.metrics.base import Metric
from tokbench.metrics.output_checks import OutputChecks
from tokbench.modalities.base import Modality
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tiling import TilingPlan, fit


class Images(Modality):
    """Images, padded and cut into tiles where a tokenizer requires it."""

    name = "image"
    ranked_by = ("psnr", "ssim", "lpips")

    def plan(self, spec: TokenizerSpec, shape: Sequence[int]) -> TilingPlan:
        return fit(spec, shape[-2], shape[-1])

    def describe_data(self, stream: ImageStream) -> dict[str, Any]:
        height, width = stream.shape or (0, 0)  # none where the run failed
        return {"width": width, "height": height}

    def output_checks(self, spec: TokenizerSpec, paired: bool, degraded: bool) -> Metric:
        return OutputChecks(spec, paired, degraded)

    def picture(self, items: Tensor) -> Tensor:
        return items
