"""Rates at equal quality: curves whose difference is known by hand, and curves that cannot be compared."""

from __future__ import annotations

import numpy as np
import pytest

from tokbench.stats.bjontegaard import IncomparableCurves, RateCurve, as_percent, log_rate_gap

DECIBELS = np.array([30.0, 33.0, 36.0, 39.0])


def test_half_the_rate_at_every_quality_is_minus_50_percent() -> None:
    anchor = RateCurve(np.array([100.0, 200.0, 450.0, 1000.0]), DECIBELS)
    half = RateCurve(anchor.rates / 2, DECIBELS)
    assert as_percent(log_rate_gap(anchor, half)) == pytest.approx(-50)
    assert as_percent(log_rate_gap(half, anchor)) == pytest.approx(100)
    assert log_rate_gap(anchor, anchor) == 0


def test_a_worked_example_with_straight_lines() -> None:
    """PCHIP of points on a line is the line. log10 of the anchor's rate is q / 10; that of the other codec exceeds it
    by 0 at 30 dB and by 0.3 at 39 dB, with a straight line between. The mean over 30 to 39 dB, which both have, is
    0.15, so the BD-rate is 10^0.15 - 1 = 41.25 %."""
    anchor = RateCurve(10 ** (DECIBELS / 10), DECIBELS)
    steeper = np.array([30.0, 34.5, 39.0, 42.0])
    other = RateCurve(10 ** (steeper / 10 + (steeper - 30) / 9 * 0.3), steeper)
    assert as_percent(log_rate_gap(anchor, other)) == pytest.approx(41.2538, abs=1e-3)


def test_the_cubics_are_those_of_pchip() -> None:
    """The middle interval of log rates 0, 1, 2, 4 at the qualities 0, 1, 2, 3 in closed form. The derivative in a point
    is the harmonic mean of the slopes beside it: 1 at 1, and 2 / (1 / 1 + 1 / 2) = 4 / 3 at 2. A cubic with these ends
    has the integral (1 + 2) / 2 + (1 - 4 / 3) / 12 over the interval."""
    curve = RateCurve(10 ** np.array([0.0, 1.0, 2.0, 4.0]), np.array([0.0, 1.0, 2.0, 3.0]))
    assert float(curve.interpolation.integrate(1, 2)) == pytest.approx(1.5 - 1 / 36)


def test_only_shared_qualities_count() -> None:
    anchor = RateCurve(10 ** (DECIBELS / 10), DECIBELS)
    beyond = RateCurve(2 * 10 ** ((DECIBELS + 6) / 10), DECIBELS + 6)
    assert as_percent(log_rate_gap(anchor, beyond)) == pytest.approx(100)
    with pytest.raises(IncomparableCurves, match="do not overlap with those of the anchor: 40 to 49 and 30 to 39"):
        log_rate_gap(anchor, RateCurve(anchor.rates, DECIBELS + 10))


def test_lower_may_be_better() -> None:
    distances = np.array([0.4, 0.2, 0.1, 0.05])
    anchor = RateCurve(np.array([1.0, 2.0, 4.0, 8.0]), distances, more=False)
    assert as_percent(log_rate_gap(anchor, RateCurve(3 * anchor.rates, distances, more=False))) == pytest.approx(200)
    assert anchor.log_rate(0.2) == pytest.approx(np.log10(2))
    with pytest.raises(IncomparableCurves, match=r"its quality 0\.5 is outside that of the anchor, 0\.05 to 0\.4"):
        anchor.log_rate(0.5)


@pytest.mark.parametrize(
    "qualities, more", [([30.0, 33.0, 32.0, 39.0], True), ([30.0, 33.0, 33.0, 39.0], True), (DECIBELS, False)]
)
def test_a_quality_that_does_not_follow_the_rate_is_refused(qualities: list[float], more: bool) -> None:
    with pytest.raises(IncomparableCurves, match="does not become strictly better with the rate"):
        RateCurve(np.array([1.0, 2.0, 3.0, 4.0]), np.array(qualities), more)


def test_three_points_are_too_few() -> None:
    with pytest.raises(IncomparableCurves, match="3 points, 4 are needed"):
        RateCurve(np.array([1.0, 2.0, 3.0]), DECIBELS[:3])
