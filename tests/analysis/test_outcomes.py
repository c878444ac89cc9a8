"""Outcomes of single differences under tolerances."""

from __future__ import annotations

import pytest

from tokbench.analysis.compare import Difference, verdict_of
from tokbench.analysis.outcomes import outcome_of
from tokbench.analysis.tolerances import default_tolerances


def without_bar(number: str, first: float, second: float) -> Difference:
    nan = float("nan")
    return Difference(number, first, second, second - first, nan, nan, 10, "no error bar")


def with_bar(number: str, first: float, second: float, low: float, high: float) -> Difference:
    return Difference(
        number, first, second, second - first, low, high, 10, verdict_of(number, second - first, low, high)
    )


def some_exact(first_only: int, second_only: int) -> Difference:
    """Return a difference with equal means over images exact in neither; some are exact in one result only."""
    return Difference("psnr", 30.0, 30.0, 0.0, 0.0, 0.0, 9, "same", first_only, second_only)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (some_exact(first_only=0, second_only=1), "regression"),
        (some_exact(first_only=1, second_only=0), "better"),
        (some_exact(first_only=0, second_only=0), "same"),
        (without_bar("kid", 0.01, 0.005), "better"),
        (without_bar("kid", 0.005, 0.01), "regression"),
        (without_bar("exact", 3, 5), "better"),
        (without_bar("exact", 5, 3), "regression"),
        (without_bar("tokens_per_image", 256, 255), "regression"),
        (without_bar("kid", 0.01, 0.010001), "same"),
        (with_bar("psnr", 30, 28.71, -5, 2), "regression"),
        (with_bar("psnr", 30, 31.29, -2, 5), "better"),
        (with_bar("psnr", 30, 29.9995, -5, 2), "same"),
        (with_bar("rfid", 1, 1.01, -1, 1), "regression"),
        (with_bar("rfid", 1, 0.99, -1, 1), "better"),
        (with_bar("codebook_entropy", 9, 9.1, -1, 1), "regression"),  # neither way is better: it is another number
    ],
)
def test_outcomes(found: Difference, expected: str) -> None:
    assert outcome_of(found, default_tolerances()[found.number]) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (with_bar("psnr", 30, 29.98, -5, 2), "within noise"),
        (with_bar("psnr", 30, 28.71, -5, 2), "regression"),  # its interval contains 0, but seeds differ by less
        (with_bar("rfid", 1, 0.9, -0.2, -0.05), "better"),
        (with_bar("psnr", 30, 29.9995, -5, 2), "same"),
        (without_bar("kid", 0.005, 0.1), "regression"),
        (some_exact(first_only=0, second_only=1), "regression"),
    ],
)
def test_outcomes_where_noise_was_drawn_anew(found: Difference, expected: str) -> None:
    tolerance = default_tolerances()[found.number]
    assert outcome_of(found, tolerance, noise=0.05, redrawn=True) == expected
