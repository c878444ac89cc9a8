"""Bootstrap intervals for means over images (percentile bootstrap, Efron 1979)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A 95 % interval and the number of images behind it. NaN edges where there were none."""

    low: float
    high: float
    n: int


def mean(values: np.ndarray) -> float:
    """Mean of the values that are not NaN, NaN where there are none. Summed exactly, so order cannot change it."""
    kept = values[~np.isnan(values)]
    return math.fsum(kept) / len(kept) if len(kept) else math.nan


def bootstrap_mean(values: np.ndarray, seed: int) -> Interval:
    """Interval of the mean of `values` (n,), NaN left out, from 1,000 resamples of images drawn with `seed`."""
    kept = values[~np.isnan(values)]
    if not len(kept):
        return Interval(math.nan, math.nan, 0)
    rng = np.random.default_rng(seed)
    means = [kept[rng.integers(0, len(kept), len(kept))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    # A mean of equal values can round past them; the interval must hold its own centre.
    centre = mean(kept)
    return Interval(min(float(low), centre), max(float(high), centre), len(kept))
