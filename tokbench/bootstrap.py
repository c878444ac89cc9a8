"""Numbers that are means over images, or functions of one, and their intervals (percentile bootstrap, Efron 1979)."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A 95 % interval and the number of images behind it. NaN edges where there were none."""

    low: float
    high: float
    n: int


def tidy(value: float) -> float | None:
    """Ten significant digits, the most that a float32 network could give a meaning to; None for NaN."""
    return None if math.isnan(value) else float(f"{value:.10g}")


def entry(value: float, interval: Interval | None = None) -> dict[str, Any]:
    """A number as a result holds it: {value, low, high} and, with an interval, {n}."""
    if interval is None:
        return {"value": tidy(value), "low": None, "high": None}
    return {"value": tidy(value), "low": tidy(interval.low), "high": tidy(interval.high), "n": interval.n}


@dataclass(frozen=True)
class OfMean:
    """A number made of per-image values: `of` their mean. `values` is their name beside the result."""

    values: str
    of: Callable[[float], float] = float


DERIVED = {
    "compression_ratio": OfMean("bpp", lambda bpp: 24 / bpp if bpp else math.nan),
    "psnr": OfMean("mse", lambda mse: 10 * math.log10(255.0**2 / mse) if mse else math.nan),
}
"""Numbers that are no plain means: raw RGB's 24 bits a pixel to the mean bpp; the PSNR of all images' pooled errors."""


def of_mean(number: str, present: Container[str]) -> OfMean | None:
    """How a number comes from the per-image values that are `present`; None where it does not."""
    if number in present:
        return OfMean(number)
    derived = DERIVED.get(number)
    return derived if derived and derived.values in present else None


def mean(values: np.ndarray) -> float:
    """Mean of the values that are not NaN, NaN where there are none. Summed exactly, so order cannot change it."""
    kept = values[~np.isnan(values)]
    return math.fsum(kept) / len(kept) if len(kept) else math.nan


def bootstrap(values: np.ndarray, seed: int, of: Callable[[float], float] = float) -> Interval:
    """Interval of `of` the mean of `values` (n,), NaN left out, from 1,000 resamples of images drawn with `seed`."""
    kept = values[~np.isnan(values)]
    if not len(kept):
        return Interval(math.nan, math.nan, 0)
    means = [of(kept[chosen].mean()) for chosen in _resamples(len(kept), seed)]
    return _interval(means, of(mean(kept)), len(kept))


def bootstrap_pairs(first: np.ndarray, second: np.ndarray, seed: int, of: Callable[[float], float] = float) -> Interval:
    """Interval of `of` the mean of `second` less that of `first`, (n,) each, no NaN, images drawn together."""
    gaps = [of(second[chosen].mean()) - of(first[chosen].mean()) for chosen in _resamples(len(first), seed)]
    return _interval(gaps, of(mean(second)) - of(mean(first)), len(first))


def _resamples(count: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    return (rng.integers(0, count, count) for _ in range(RESAMPLES))


def _interval(found: Sequence[float], centre: float, count: int) -> Interval:
    return Interval(*edges(found, centre), count)


def edges(found: Sequence[float] | np.ndarray, centre: float) -> tuple[float, float]:
    """The 95 % interval of resampled values, NaN left out, around the value itself; NaN where there are none."""
    if math.isnan(centre) or np.isnan(found).all():
        return math.nan, math.nan
    low, high = np.nanquantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    # A mean of equal values can round past them; the interval must hold its own centre.
    return min(float(low), centre), max(float(high), centre)
