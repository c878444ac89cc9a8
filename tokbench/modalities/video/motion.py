"""How clips change in time: flicker, and the error along the flow."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.errors import NotApplicable
from tokbench.metrics.base import PerImageMetric
from tokbench.metrics.batch import Batch, Side
from tokbench.protocol.protocol import TOKBENCH, Protocol


class Flicker(PerImageMetric):
    """`flicker`: the mean absolute difference, in levels, between the frame differences of the output and those of the
    original.

    It is 0 for a constant error, such as a blur that is the same in all frames, and for an exact clip.
    """

    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def __init__(self, protocol: Protocol = TOKBENCH) -> None:
        super().__init__()
        self._rounding = protocol.rounding

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        image, reference = (batch.rounded(side, self._rounding).double() for side in ("image", "reference"))
        if image.shape[1] < 2:
            raise NotApplicable("needs clips of at least two frames")
        gap = (image - reference) * 255
        return {"flicker": (gap[:, 1:] - gap[:, :-1]).abs().flatten(1).mean(1).numpy()}


class WarpError(PerImageMetric):
    """`warp_error`: the mean absolute difference, in levels, between each frame and the frame before it, warped by the
    exact flow, over the pixels that are visible in both. `warp_error_original` is that of the originals.

    Data without exact flow have no warp error: an estimated flow would measure its own errors, too.
    """

    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def __init__(self, protocol: Protocol = TOKBENCH) -> None:
        super().__init__()
        self._rounding = protocol.rounding

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        flow, visible = batch.require_extra("flow"), batch.require_extra("visible")
        if flow.shape[1] < 1:
            raise NotApplicable("needs clips of at least two frames")
        sides: tuple[tuple[str, Side], ...] = (("warp_error", "image"), ("warp_error_original", "reference"))
        return {name: self._error(batch, side, flow, visible) for name, side in sides}

    def _error(self, batch: Batch, side: Side, flow: Tensor, visible: Tensor) -> np.ndarray:
        assert side != "original"
        clips = batch.rounded(side, self._rounding)
        warped = warp(clips[:, :-1].flatten(0, 1), flow.flatten(0, 1)).unflatten(0, flow.shape[:2])
        gaps = (clips[:, 1:] - warped).abs().mean(2) * 255
        shown = visible.double()
        counts = shown.flatten(1).sum(1)
        errors = (gaps.double() * shown).flatten(1).sum(1) / counts
        return torch.where(counts > 0, errors, torch.nan).numpy()


def warp(images: Tensor, flow: Tensor) -> Tensor:
    """Return images (B, 3, H, W) moved along the flow (B, 2, H, W).

    The value at a pixel p is that of `images` at p - flow(p), by bilinear interpolation; outside, the nearest pixel.
    """
    height, width = images.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    at = torch.stack([columns - flow[:, 0], rows - flow[:, 1]], -1)
    # With align_corners, -1 and 1 are the centres of the first and the last pixel.
    scale = torch.tensor([max(width - 1, 1), max(height - 1, 1)])
    return F.grid_sample(images, 2 * at / scale - 1, padding_mode="border", align_corners=True)
