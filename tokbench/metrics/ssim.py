"""SSIM (Wang et al. 2004) and multi-scale SSIM (Wang, Simoncelli and Bovik 2003), as their papers define them."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
from scipy.ndimage import correlate1d

from tokbench.errors import NotApplicable
from tokbench.metrics.base import PerImageMetric
from tokbench.metrics.batch import Batch
from tokbench.protocol.protocol import TOKBENCH, Protocol, Rounding, Ssim

WINDOW, SIGMA, K1, K2, RANGE = 11, 1.5, 0.01, 0.03, 255.0
UNIFORM = 7
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SMALLEST_MULTI_SCALE = (WINDOW - 1) * 2 ** (len(SCALE_WEIGHTS) - 1) + 1


def _gaussian() -> np.ndarray:
    weights = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
    return np.asarray(weights / weights.sum())


@dataclass(frozen=True)
class Window:
    """How local means are computed: `weights` along each axis, the estimator of covariances, the range of the data."""

    weights: np.ndarray
    unbiased: float = 1.0
    """The factor of covariances: 1, or n / (n - 1) for the sample covariance of n pixels."""
    range: float = RANGE
    reflect: bool = False

    def mean(self, maps: np.ndarray) -> np.ndarray:
        """Return local means of float64 (H, W, C), at positions where the whole window lies inside, or everywhere with
        `reflect`."""
        filtered = _filter(maps, self.weights)
        edge = 0 if self.reflect else len(self.weights) // 2
        return filtered[edge : len(maps) - edge, edge : maps.shape[1] - edge]


def _filter(maps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Correlate along both axes in float64, with borders mirrored about the last pixel. OpenCV takes half of SciPy's
    time, and differs only in the last bits."""
    if (cv2 := _opencv()) is None:
        across = correlate1d(maps, weights, axis=1, mode="mirror")
        return np.asarray(correlate1d(across, weights, axis=0, mode="mirror"))
    filtered = cv2.sepFilter2D(maps, cv2.CV_64F, weights, weights, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(filtered)


@cache
def _opencv() -> Any:
    """Return the module cv2, or None where it is not installed. The `fast` extra installs it."""
    try:
        import cv2
    except ImportError:
        return None
    return cv2


PAPER = Window(_gaussian())
"""The window of Wang et al. (2004)."""


def window_of(rule: Ssim) -> Window:
    """Return the window that a protocol specifies."""
    weights = PAPER.weights if rule.window == "gaussian" else np.full(UNIFORM, 1 / UNIFORM)
    # scikit-image uses n = 121 for an 11 x 11 Gaussian, too, as if its pixels had equal weights.
    unbiased = len(weights) ** 2 / (len(weights) ** 2 - 1) if rule.covariance == "sample" else 1.0
    return Window(weights, unbiased, rule.range, rule.border == "reflect")


class SSIM(PerImageMetric):
    """Mean SSIM on RGB levels: 11x11 Gaussian window of sigma 1.5, K1 .01, K2 .03, population covariance, range 255.

    It is averaged over the valid region and over R, G and B, like scikit-image with gaussian_weights=True, sigma=1.5
    and use_sample_covariance=False. scikit-image's default is a 7x7 uniform window instead; a protocol can select it
    and the other options of `tokbench.protocol.protocol.Ssim`.
    """

    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def __init__(self, protocol: Protocol = TOKBENCH) -> None:
        super().__init__()
        self._window, self._rounding = window_of(protocol.ssim), protocol.rounding_of(protocol.ssim)

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        def ssim_of_pair(x: np.ndarray, y: np.ndarray) -> float:
            return float(ssim_and_contrast(x, y, self._window)[0].mean())

        return {"ssim": _each_pair(batch, self._rounding, len(self._window.weights), ssim_of_pair)}


class MultiScaleSSIM(PerImageMetric):
    """Mean MS-SSIM on RGB levels: five scales with the paper's weights, each a 2x2 mean of the previous one.

    Window and constants are the paper's in every protocol. Images need at least 161 px per side, so that the window
    fits after four halvings.
    """

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __init__(self, protocol: Protocol = TOKBENCH) -> None:
        super().__init__()
        self._rounding = protocol.rounding_of(protocol.ssim)

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        return {"ms_ssim": _each_pair(batch, self._rounding, SMALLEST_MULTI_SCALE, multi_scale_ssim)}


def _each_pair(
    batch: Batch, rounding: Rounding, smallest: int, measure: Callable[[np.ndarray, np.ndarray], float]
) -> np.ndarray:
    """Return `measure` of every image and its reference, which are passed as float64 levels (H, W, 3)."""
    images, references = (
        batch.levels(side, rounding).permute(0, 2, 3, 1).numpy().astype(np.float64, order="C")
        for side in ("image", "reference")
    )
    side = min(images.shape[1:3])
    if side < smallest:
        raise NotApplicable(f"needs images of at least {smallest} px per side; these have {side}")
    return np.array(list(_threads().map(measure, images, references)))


@cache
def _threads() -> ThreadPoolExecutor:
    """Return the thread pool. The filters release the interpreter's lock. The pool is kept, since each new thread would
    allocate a memory arena."""
    return ThreadPoolExecutor(os.cpu_count(), "ssim")


def ssim_and_contrast(x: np.ndarray, y: np.ndarray, window: Window = PAPER) -> tuple[np.ndarray, np.ndarray]:
    """Return per-channel means (C,) of SSIM and of its contrast-structure factor, for two images (H, W, C) of
    levels."""
    mean_x, mean_y, squares, xy = (window.mean(maps) for maps in (x, y, x * x + y * y, x * y))
    c1, c2 = (K1 * window.range) ** 2, (K2 * window.range) ** 2
    product, both = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    contrast = (2 * window.unbiased * (xy - product) + c2) / (window.unbiased * (squares - both) + c2)
    luminance = (2 * product + c1) / (both + c1)
    return _channel_means(luminance * contrast), _channel_means(contrast)


def _channel_means(maps: np.ndarray) -> np.ndarray:
    """Return means (C,) of (H, W, C). Rows are averaged first, since NumPy is many times slower over both axes
    at once."""
    rows = maps.reshape(len(maps), -1).mean(axis=0)
    return np.asarray(rows.reshape(maps.shape[1:]).mean(axis=0))


def multi_scale_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Return MS-SSIM of two images (H, W, C) in 0..255: computed per channel, then averaged. Negative factors count as
    0."""
    product = np.ones(x.shape[2])
    for scale, weight in enumerate(SCALE_WEIGHTS):
        whole, contrast = ssim_and_contrast(x, y)
        last = scale == len(SCALE_WEIGHTS) - 1
        product *= np.maximum(whole if last else contrast, 0) ** weight
        x, y = _halve(x), _halve(y)
    return float(product.mean())


def _halve(image: np.ndarray) -> np.ndarray:
    """Return 2x2 means. An odd edge is repeated first, as in TensorFlow's ssim_multiscale."""
    height, width = image.shape[:2]
    even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    rows = even[::2] + even[1::2]
    return np.asarray((rows[:, ::2] + rows[:, 1::2]) / 4)
