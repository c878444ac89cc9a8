"""Clips: how they are passed to tokenizers of clips and of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tokbench.data.stream import ImageStream
from tokbench.errors import NotApplicable
from tokbench.metrics.base import Metric
from tokbench.modalities.base import Modality, PaddedPlan, Plan, round_up
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tiling import TilingPlan, fit


@dataclass(frozen=True)
class FramePlan:
    """Each frame of a clip is an image of its own. frames: the number of frames. inner: the plan of one frame."""

    frames: int
    inner: TilingPlan

    @property
    def tiles(self) -> int:
        return self.frames * self.inner.tiles

    def cut(self, images: Tensor) -> Tensor:
        return self.inner.cut(images.flatten(0, 1))

    def join(self, tiles: Tensor) -> Tensor:
        return self.inner.join(tiles).unflatten(0, (-1, self.frames))

    def describe(self) -> str:
        inner = self.inner.describe()
        return f"passed frame by frame{f', {inner}' if inner else ''}"


class Clips(Modality):
    """Clips. A tokenizer of images alone gets every frame as an image."""

    name = "video"
    ranked_by = ("frame_psnr", "frame_ssim", "frame_lpips", "flicker")

    def check(self, spec: TokenizerSpec) -> None:
        if "image" not in spec.modalities:
            super().check(spec)

    def plan(self, spec: TokenizerSpec, shape: Sequence[int]) -> Plan:
        """Raises NotApplicable if a tokenizer of clips has another frame size."""
        frames, _, height, width = shape
        if "video" not in spec.modalities:
            return FramePlan(frames, fit(spec, height, width))
        if spec.size is not None and (height, width) != (spec.size, spec.size):
            raise NotApplicable(
                f"{spec.name}: it takes frames of {spec.size}x{spec.size} px, not {width}x{height}; give --size "
                f"{spec.size}"
            )
        first = int(spec.first_frame)
        padded = first + round_up(max(frames - first, 0), spec.temporal)
        step = spec.multiple
        return PaddedPlan(tuple(shape), (padded, 3, round_up(height, step), round_up(width, step)))

    def describe_data(self, stream: ImageStream) -> dict[str, Any]:
        frames, _, height, width = stream.shape or (0, 3, 0, 0)
        native = stream.summary().native_size
        size = "" if height == width == native else f".s{width}" if height == width else f".s{width}x{height}"
        return {"width": width, "height": height, "modality": self.name, "extent": f"t{frames}{size}"}

    def output_checks(self, spec: TokenizerSpec, paired: bool, degraded: bool) -> Metric:
        from tokbench.modalities.video.frames import MiddleFrameChecks  # it imports SciPy, which images do not need

        return MiddleFrameChecks(spec, paired)

    def picture(self, items: Tensor) -> Tensor:
        """Return strips of up to `STRIP` frames, evenly spaced in time, from left to right."""
        places = torch.linspace(0, items.shape[1] - 1, min(STRIP, items.shape[1])).round().long()
        return torch.cat(list(items[:, places].unbind(1)), dim=-1)


STRIP = 8
"""The largest number of frames in a strip."""
