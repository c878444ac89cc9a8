"""SSIM (Wang et al. 2004) and multi-scale SSIM (Wang, Simoncelli and Bovik 2003), as their papers define them."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from scipy.ndimage import correlate1d

from tokbench.batch import Batch
from tokbench.errors import NotApplicable
from tokbench.metrics.metric import PerImageMetric
from tokbench.pixels import to_bytes

WINDOW, SIGMA, K1, K2, RANGE = 11, 1.5, 0.01, 0.03, 255.0
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SMALLEST_MULTI_SCALE = (WINDOW - 1) * 2 ** (len(SCALE_WEIGHTS) - 1) + 1


class SSIM(PerImageMetric):
    """Mean SSIM on 8-bit RGB: 11x11 Gaussian window of sigma 1.5, K1 .01, K2 .03, population covariance, range 255.

    Averaged over the valid region and over R, G and B: scikit-image with gaussian_weights=True, sigma=1.5 and
    use_sample_covariance=False. Not scikit-image's default, which is a 7x7 uniform window.
    """

    def measure(self, batch: Batch) -> dict[str, np.ndarray]:
        return {"ssim": _each_pair(batch, WINDOW, lambda x, y: float(ssim_and_contrast(x, y)[0].mean()))}


class MultiScaleSSIM(PerImageMetric):
    """Mean MS-SSIM on 8-bit RGB: five scales with the paper's weights, each a 2x2 mean of the one before.

    Window and constants are those of `SSIM`. From 161 px on: four halvings must leave more than the window.
    """

    def measure(self, batch: Batch) -> dict[str, np.ndarray]:
        return {"ms_ssim": _each_pair(batch, SMALLEST_MULTI_SCALE, multi_scale_ssim)}


def _each_pair(batch: Batch, smallest: int, measure: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
    """`measure` of every image and its reference, as float64 (3, H, W) in 0..255."""
    images, references = (to_bytes(batch.need(side)).numpy().astype(np.float64) for side in ("image", "reference"))
    side = min(images.shape[2:])
    if side < smallest:
        raise NotApplicable(f"needs images of at least {smallest} px a side; these have {side}")
    return np.array(list(_threads().map(measure, images, references)))


@cache
def _threads() -> ThreadPoolExecutor:
    """SciPy's filters let other threads run. One pool for good: each new thread would take a memory arena."""
    return ThreadPoolExecutor(os.cpu_count(), "ssim")


def _window() -> np.ndarray:
    weights = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
    return np.asarray(weights / weights.sum())


_WEIGHTS, _EDGE = _window(), WINDOW // 2


def _filter(maps: np.ndarray) -> np.ndarray:
    """Gaussian means of (..., H, W) at the positions where the whole window lies inside: (..., H - 10, W - 10)."""
    across = correlate1d(maps, _WEIGHTS, axis=-1)[..., _EDGE:-_EDGE]
    return np.asarray(correlate1d(across, _WEIGHTS, axis=-2)[..., _EDGE:-_EDGE, :])


def ssim_and_contrast(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per-channel means (C,) of SSIM and of its contrast-structure factor, for two images (C, H, W) in 0..255."""
    mean_x, mean_y, squares, xy = _filter(np.stack([x, y, x * x + y * y, x * y]))
    c1, c2 = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    product, both = mean_x * mean_y, mean_x**2 + mean_y**2
    contrast = (2 * (xy - product) + c2) / (squares - both + c2)
    luminance = (2 * product + c1) / (both + c1)
    return (luminance * contrast).mean(axis=(1, 2)), contrast.mean(axis=(1, 2))


def multi_scale_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """MS-SSIM of two images (C, H, W) in 0..255: per channel, then averaged; negative factors count as 0."""
    product = np.ones(len(x))
    for scale, weight in enumerate(SCALE_WEIGHTS):
        whole, contrast = ssim_and_contrast(x, y)
        last = scale == len(SCALE_WEIGHTS) - 1
        product *= np.maximum(whole if last else contrast, 0) ** weight
        x, y = _halve(x), _halve(y)
    return float(product.mean())


def _halve(image: np.ndarray) -> np.ndarray:
    """2x2 means; an odd edge is doubled first, as in TensorFlow's ssim_multiscale."""
    height, width = image.shape[1:]
    even = np.pad(image, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    return even.reshape(len(image), even.shape[1] // 2, 2, even.shape[2] // 2, 2).mean(axis=(2, 4))
