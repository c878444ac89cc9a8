"""Voxels: how they are passed to tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tokbench.data.stream import ImageStream
from tokbench.errors import NotApplicable
from tokbench.metrics.base import Metric
from tokbench.modalities.base import Modality, PaddedPlan, round_up
from tokbench.modalities.checks import ItemChecks
from tokbench.tokenizers.spec import TokenizerSpec


class Voxels(Modality):
    """Coloured voxels, padded with empty ones to the multiple that a tokenizer requires."""

    name = "shape"
    ranked_by = ("iou", "f_score", "colour_psnr")

    def plan(self, spec: TokenizerSpec, shape: Sequence[int]) -> PaddedPlan:
        """Raises NotApplicable if a tokenizer of one grid takes a smaller one."""
        channels, *sides = shape
        if spec.size is not None and max(sides) > spec.size:
            raise NotApplicable(
                f"{spec.name}: it takes grids of {spec.size} voxels per side, not {max(sides)}; give --size {spec.size}"
            )
        padded = (channels, *(round_up(side, spec.size or spec.multiple) for side in sides))
        return PaddedPlan(tuple(shape), padded, 0.0)

    def describe_data(self, stream: ImageStream) -> dict[str, Any]:
        side = (stream.shape or (4, 0, 0, 0))[-1]
        return {"width": side, "height": side, "modality": self.name, "extent": f"v{side}"}

    def output_checks(self, spec: TokenizerSpec, paired: bool, degraded: bool) -> Metric:
        return ItemChecks(spec, self.noun)

    def picture(self, items: Tensor) -> Tensor:
        """Return the views from the front (along y) and from the left (along x), side by side, with z upwards. Each
        pixel has the colour of the first voxel on its line, darker with its distance; the background is white."""
        views = [_view(items, axis) for axis in (3, 2)]
        return torch.cat(views, dim=-1).repeat_interleave(ZOOM, -1).repeat_interleave(ZOOM, -2)


ZOOM = 4
"""Pixels per voxel of the views on the page."""


def _view(items: Tensor, axis: int) -> Tensor:
    """Return views (B, 3, D, D) of voxels (B, 4, x, y, z) along an axis."""
    occupied = items[:, 0] > 0.5
    seen, first = occupied.int().max(axis - 1)  # the first of several largest values
    index = first.unsqueeze(1).unsqueeze(axis).expand(-1, 3, *(1 if i == axis else -1 for i in (2, 3, 4)))
    colours = items[:, 1:].gather(axis, index).squeeze(axis)
    shade = 1 - first.unsqueeze(1) / (2 * items.shape[axis])
    view = torch.where(seen.unsqueeze(1).bool(), colours * shade, torch.ones_like(colours))
    return view.transpose(2, 3).flip(2)  # (horizontal, z) becomes (z downwards, horizontal)
