"""PSNR."""

from __future__ import annotations

import numpy as np
import torch

from tokbench.metrics.base import PerImageMetric
from tokbench.metrics.batch import Batch
from tokbench.protocol.protocol import TOKBENCH, Protocol
from tokbench.results.warning import ResultWarning
from tokbench.stats.bootstrap import MIN_POSITIVE_VALUES, mean

PEAK = 255.0
"""The largest level of 8-bit images."""


class PSNR(PerImageMetric):
    """`psnr`: 10 log10(255^2 / MSE) in dB on RGB levels, with the MSE over all pixels and channels of an image.

    The protocol determines how it is averaged (see `tokbench.protocol.protocol.Psnr`). Without an epsilon, an exact
    image has no finite PSNR: it is counted in `exact` and, except in the pooled form, left out of the mean.
    """

    def __init__(self, protocol: Protocol = TOKBENCH) -> None:
        super().__init__()
        self._rule, self._rounding = protocol.psnr, protocol.rounding_of(protocol.psnr)

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        image, reference = (batch.levels(side, self._rounding) for side in ("image", "reference"))
        wide = torch.float64 if image.is_floating_point() else torch.int16
        gaps = (image.to(wide) - reference.to(wide)).flatten(1)
        # 16-bit differences, squared in 32 bits and summed in 64 bits, give exact integers.
        squares = gaps.to(torch.int32).square_() if wide == torch.int16 else gaps.square_()
        mse = squares.sum(1).double().numpy() / squares.shape[1]
        if self._rule.average == "pooled":
            return {"mse": mse}
        with np.errstate(divide="ignore"):
            decibels = 20 * np.log10(PEAK / (np.sqrt(mse) + self._rule.epsilon))
        return {"psnr": np.where(np.isfinite(decibels), decibels, np.nan)}

    def numbers(self) -> list[str]:
        return ["psnr"]

    def compute(self) -> dict[str, float]:
        numbers = super().compute()
        (values,) = (values for _, values in self.per_image().values())
        if self._rule.average == "batch":
            batches = np.split(values, range(self._rule.batch_size, len(values), self._rule.batch_size))
            numbers["psnr"] = mean(np.array([mean(batch) for batch in batches]))
        return numbers | {"exact": float(self._exact(values).sum())}

    def _exact(self, values: np.ndarray) -> np.ndarray:
        return (values == 0) if self._rule.average == "pooled" else np.isnan(values)

    def warnings(self) -> list[ResultWarning]:
        """Return a warning where too few images are inexact for an interval: other images could all be exact, without a
        finite PSNR."""
        (values,) = (values for _, values in self.per_image().values())
        inexact = int((~self._exact(values)).sum())
        if self._rule.average != "pooled" or not 0 < inexact < min(MIN_POSITIVE_VALUES, len(values)):
            return []
        changed = f"{inexact} of {len(values):,} images are not exact"
        text = f"psnr has no interval: {changed}, and it needs {MIN_POSITIVE_VALUES}"
        return [ResultWarning("psnr_interval", text)]
