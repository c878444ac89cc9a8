"""Differences in rate at equal quality: Bjøntegaard's delta rate (VCEG-M33, 2001) with piecewise cubic interpolation.

A rate-quality curve is log10 of the rate as a function of the quality, interpolated by monotone piecewise cubics
(PCHIP, Fritsch and Butland 1984), as is usual today. The single cubic of the original proposal can swing between its
points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.interpolate import PchipInterpolator

MIN_POINTS = 4
"""The number of points from which a curve has a BD-rate, as in Bjøntegaard's proposal."""


class IncomparableCurves(ValueError):
    """Two curves have no difference in rate; the message is the reason."""


@dataclass(frozen=True)
class RateCurve:
    """The points of a codec at several settings.

    rates: bits per image or per pixel (n,), all above 0, in any order. qualities: the quality at each rate (n,). more:
    whether higher values of it are better. Raises IncomparableCurves if there are too few points, or if the quality
    does not become strictly better with the rate.
    """

    rates: np.ndarray
    qualities: np.ndarray
    more: bool = True

    def __post_init__(self) -> None:
        if len(self.rates) < MIN_POINTS:
            raise IncomparableCurves(f"{len(self.rates)} points, {MIN_POINTS} are needed")
        order = np.argsort(self.rates)
        gaps = np.diff(self.qualities[order])
        if not (gaps > 0 if self.more else gaps < 0).all():
            raise IncomparableCurves("the quality does not become strictly better with the rate")

    @property
    def span(self) -> tuple[float, float]:
        """The smallest and the largest quality value."""
        return float(self.qualities.min()), float(self.qualities.max())

    @cached_property
    def interpolation(self) -> PchipInterpolator:
        """log10 of the rate as a function of the quality, defined on `span`."""
        from scipy.interpolate import PchipInterpolator  # SciPy takes longer to import than most commands run

        order = np.argsort(self.qualities)
        return PchipInterpolator(self.qualities[order], np.log10(self.rates[order]))

    def log_rate(self, quality: float) -> float:
        """Return log10 of the rate at a quality. Raises IncomparableCurves if the curve does not reach it."""
        low, high = self.span
        if not low <= quality <= high:
            raise IncomparableCurves(
                f"its quality {quality:.4g} is outside that of the anchor, {low:.4g} to {high:.4g}"
            )
        return float(self.interpolation(quality))


def overlap(anchor: RateCurve, other: RateCurve) -> tuple[float, float]:
    """Return the range of qualities that both curves have. Raises IncomparableCurves if there is none."""
    low, high = max(anchor.span[0], other.span[0]), min(anchor.span[1], other.span[1])
    if low >= high:
        ranges = " and ".join(f"{curve.span[0]:.4g} to {curve.span[1]:.4g}" for curve in (other, anchor))
        raise IncomparableCurves(f"the qualities do not overlap with those of the anchor: {ranges}")
    return low, high


def log_rate_gap(anchor: RateCurve, other: RateCurve) -> float:
    """Return the mean of log10(rate of `other` / rate of `anchor`) over the qualities that both have.

    Raises IncomparableCurves if there are none.
    """
    low, high = overlap(anchor, other)
    ours, theirs = (float(curve.interpolation.integrate(low, high)) for curve in (other, anchor))
    return (ours - theirs) / (high - low)


def as_percent(log_gap: float) -> float:
    """Return a difference of log10 rates as a change of the rate in percent: -50 for half the rate."""
    return 100 * (10**log_gap - 1)
