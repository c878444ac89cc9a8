"""Errors of single pixels, distances of a variant of a decoder from the decoder itself, and jumps at tile borders."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from tokbench.errors import NotApplicable
from tokbench.metrics.base import Metric, PerImageMetric
from tokbench.metrics.batch import Batch
from tokbench.metrics.perceptual import LPIPS
from tokbench.metrics.psnr import PSNR
from tokbench.metrics.ssim import SSIM
from tokbench.protocol.protocol import TOKBENCH, Protocol
from tokbench.results.warning import ResultWarning
from tokbench.stats.bootstrap import Interval
from tokbench.tokenizers.tiled_decode import Seams

if TYPE_CHECKING:
    from tokbench.extractors.lpips import LPIPSNetwork

T = TypeVar("T")

QUANTILE = 0.999
"""The share of an image's values whose error is at most `p999_error`."""

BESIDE = 3
"""The distance, in pixels, of the lines with which a tile border is compared."""


class PixelErrors(PerImageMetric):
    """Means over images, on 8-bit levels: `max_error`, the largest absolute difference of an image from its reference
    over all pixels and channels; `p999_error`, the smallest level that at least 99.9 % of its differences do not
    exceed; `changed_share`, the share of pixels with a channel that differs by more than one level."""

    bounds: ClassVar[tuple[float, float]] = (0.0, 255.0)

    def __init__(self, protocol: Protocol = TOKBENCH) -> None:
        super().__init__()
        self._rounding = protocol.rounding_of(protocol.psnr)

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        image, reference = (batch.levels(side, self._rounding) for side in ("image", "reference"))
        rows = [_errors_of(one, other) for one, other in zip(image, reference, strict=True)]
        return dict(zip(("max_error", "p999_error", "changed_share"), np.array(rows).T, strict=True))


def _errors_of(image: Tensor, reference: Tensor) -> tuple[float, float, float]:
    """Return largest error, 99.9 % error and share of changed pixels of levels (3, H, W)."""
    errors = (image.double() - reference.double()).abs_()
    flat = errors.flatten()
    rank = math.ceil(QUANTILE * len(flat))
    return float(flat.max()), float(flat.kthvalue(rank).values), float((errors.amax(0) > 1).double().mean())


class ToBaseline(Metric):
    """The numbers of another metric, with the images of the decoder itself as references: `decode_psnr` for `psnr`."""

    def __init__(self, metric: PerImageMetric) -> None:
        self._metric = metric
        super().__init__()
        self.rows = metric.rows

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        return self._metric.per_sample(batch.against_baseline())

    def compute(self) -> dict[str, float]:
        return _prefixed(self._metric.compute())

    def per_image(self) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        return _prefixed(self._metric.per_image())

    def intervals(self, seed: int) -> dict[str, Interval]:
        return _prefixed(self._metric.intervals(seed))

    def warnings(self) -> list[ResultWarning]:
        return self._metric.warnings()

    def provenance(self) -> dict[str, str]:
        return self._metric.provenance()


def _prefixed(numbers: Mapping[str, T]) -> dict[str, T]:
    return {f"decode_{name}": value for name, value in numbers.items()}


class DecoderPSNR(ToBaseline):
    """`decode_psnr` and `decode_exact`."""

    def __init__(self, protocol: Protocol = TOKBENCH) -> None:
        super().__init__(PSNR(protocol))


class DecoderSSIM(ToBaseline):
    """`decode_ssim`."""

    def __init__(self, protocol: Protocol = TOKBENCH) -> None:
        super().__init__(SSIM(protocol))


class DecoderLPIPS(ToBaseline):
    """`decode_lpips`."""

    def __init__(self, network: LPIPSNetwork, protocol: Protocol = TOKBENCH) -> None:
        super().__init__(LPIPS("lpips", network, protocol))


class DecoderPixelErrors(ToBaseline):
    """`decode_max_error`, `decode_p999_error` and `decode_changed_share`."""

    def __init__(self, protocol: Protocol = TOKBENCH) -> None:
        super().__init__(PixelErrors(protocol))


class SeamExcess(PerImageMetric):
    """`seam_excess` and `seam_excess_whole`: how much larger the jump across tile borders is than that across the lines
    three pixels beside them, in levels, of the variant and of the decoder itself, which has no tiles.

    A jump is the mean absolute difference of neighbouring pixels across a line, over its length and the channels. The
    number is the mean over all lines of an image. For images without structure at the lines it is about 0.
    """

    def __init__(self, protocol: Protocol = TOKBENCH) -> None:
        super().__init__()
        self._rounding = protocol.rounding_of(protocol.psnr)

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        seams: Seams = batch.require("seams")
        if not seams:
            raise NotApplicable("this variant has no tiles, or the images are no larger than one")
        whole = batch.against_baseline()
        levels = {
            "seam_excess": whole.levels("image", self._rounding),
            "seam_excess_whole": whole.levels("reference", self._rounding),
        }
        return {name: seam_excess(images.double(), seams) for name, images in levels.items()}


def seam_excess(images: Tensor, seams: Seams) -> np.ndarray:
    """Return the mean excess (B,) over the seams of levels (B, 3, H, W); NaN where no seam has lines on both sides."""
    found = [excess_at(images, axis, at) for axis, at in lines_of(images, seams)]
    return torch.stack(found).mean(0).numpy() if found else np.full(len(images), np.nan)


def lines_of(images: Tensor, seams: Seams) -> list[tuple[int, int]]:
    """Return the axis (2 or 3) and the position of every seam of images (B, 3, H, W) that has lines on both sides."""
    pairs = [(2, at) for at in seams.rows] + [(3, at) for at in seams.columns]
    return [(axis, at) for axis, at in pairs if BESIDE < at < images.shape[axis] - BESIDE]


def excess_at(images: Tensor, axis: int, at: int) -> Tensor:
    """Return the jump (B,) of images (B, 3, H, W) across the line before position `at` of an axis, minus the mean of
    the jumps three pixels before and after it."""

    def jump(position: int) -> Tensor:
        after, before = images.select(axis, position), images.select(axis, position - 1)
        return (after - before).abs().flatten(1).mean(1)

    return jump(at) - (jump(at - BESIDE) + jump(at + BESIDE)) / 2
