"""Shift of colors and brightness: the difference of an image's and its reference's mean RGB."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tokbench.metrics.base import PerImageMetric
from tokbench.metrics.batch import Batch
from tokbench.metrics.psnr import PEAK


class ColorShift(PerImageMetric):
    """`color_shift`: |mean of a channel of the image - that of its reference| in levels, averaged over R, G and B.

    It does not see where in an image a difference is. A reconstruction that is only blurred has a shift near 0.
    """

    bounds: ClassVar[tuple[float, float]] = (0.0, PEAK)

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        image, reference = (batch.levels(side).double().mean((2, 3)) for side in ("image", "reference"))
        return {"color_shift": (image - reference).abs().mean(1).numpy()}
