"""PSNR."""

from __future__ import annotations

import numpy as np
import torch

from tokbench.batch import Batch
from tokbench.metrics.metric import PerImageMetric
from tokbench.pixels import to_bytes


class PSNR(PerImageMetric):
    """Mean over images of 10 log10(255^2 / MSE) in dB, on 8-bit RGB, the MSE over all pixels and channels of an image.

    An exact image has no finite PSNR: it is counted in `exact` and left out of the mean.
    """

    def measure(self, batch: Batch) -> dict[str, np.ndarray]:
        gap = to_bytes(batch.need("image")).to(torch.float64) - to_bytes(batch.need("reference")).to(torch.float64)
        mse = gap.square().mean(dim=(1, 2, 3)).numpy()
        with np.errstate(divide="ignore"):
            decibels = 10 * np.log10(255.0**2 / mse)
        return {"psnr": np.where(mse > 0, decibels, np.nan)}

    def compute(self) -> dict[str, float]:
        values = self.per_image()["psnr"][1]
        return super().compute() | {"exact": float(np.isnan(values).sum())}
