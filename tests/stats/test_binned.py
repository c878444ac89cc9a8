"""Bins and their intervals: edges, the algebra of means, and whole images in every resample."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokbench.metrics.text_scores import errors
from tokbench.stats.binned import (
    CHARACTER_BINS,
    FACE_BINS,
    FACE_PIXEL_BINS,
    TEXT_BINS,
    Bin,
    BinnedMean,
    binned,
    mean_of_bins,
)
from tokbench.stats.bootstrap import bootstrap

FEW = settings(max_examples=20, deadline=None, derandomize=True, database=None)
ALL = (Bin("all", -math.inf, math.inf),)
THREE = TEXT_BINS[256]
PUBLISHED = [*TEXT_BINS.values(), *(bins for release in FACE_BINS.values() for bins in release.values())]


def edges(one: BinnedMean) -> tuple[float, float, float]:
    return one.low, one.mean, one.high


@pytest.fixture
def words() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """300 words of 60 images: scores that are alike within an image, relative sizes, and the images."""
    rng = np.random.default_rng(0)
    images = np.sort(rng.integers(0, 60, 300))
    scores = np.clip(rng.random(60)[images] + rng.normal(0, 0.1, 300), 0, 1)
    return scores, rng.uniform(0.02, 0.06, 300), images


@pytest.mark.parametrize("bins", PUBLISHED)
def test_published_bins(bins: tuple[Bin, ...]) -> None:
    """Each bin begins at the end of the previous one and includes that value; a ratio of 1 is in no bin."""
    assert [one.name for one in bins] == ["small", "medium", "large"]
    axis = np.array([one.low for one in bins] + [1, bins[0].low - 1e-9])
    assert [one.n for one in binned(np.ones(5), axis, bins, 0)] == [1, 1, 1]
    assert bins[-1].high == 1


def test_the_floor_of_words_is_the_same_at_every_side() -> None:
    assert {side * bins[0].low for side, bins in TEXT_BINS.items()} == {5.12}


@pytest.mark.parametrize("bins", [CHARACTER_BINS, FACE_PIXEL_BINS])
def test_curves_leave_nothing_out(bins: tuple[Bin, ...]) -> None:
    axis = np.concatenate([np.linspace(0, 300, 3001), [one.low for one in bins], [1e9]])
    assert sum(one.n for one in binned(np.ones(len(axis)), axis, bins, 0)) == len(axis)
    assert (bins[0].name, bins[-1].name) == (f"below {bins[0].high:g}", f"from {bins[-1].low:g}")
    assert len({one.name for one in bins}) == len(bins)


def test_an_empty_bin_has_no_mean() -> None:
    small, medium, large = binned(np.array([0.5, 1.0]), np.array([0.02, 0.5]), THREE, 0)
    assert (medium.n, medium.groups) == (0, 0)
    assert np.isnan(edges(medium)).all()
    assert (small.mean, large.mean) == (0.5, 1)
    whole = mean_of_bins(np.array([0.5, 1.0]), np.array([0.02, 0.5]), THREE, 0)
    assert whole.n == 2
    assert np.isnan(edges(whole)).all()
    assert [one.n for one in binned(np.empty(0), np.empty(0), THREE, 0)] == [0, 0, 0]


def test_means_by_hand() -> None:
    values, axis = np.array([1, 0, 0, 1, 1, 0.25]), np.array([0.02, 0.029, 0.03, 0.035, 0.04, 0.9])
    assert [one.mean for one in binned(values, axis, THREE, 0)] == [0.5, 0.5, 0.625]
    assert mean_of_bins(values, axis, THREE, 0).mean == pytest.approx((0.5 + 0.5 + 0.625) / 3, abs=1e-15)


@pytest.mark.slow
@FEW
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 60), st.integers(0, 5)), min_size=1, max_size=40))
def test_algebra(rows: list[tuple[float, float, int]]) -> None:
    values, axis, images = (np.array(column) for column in zip(*rows, strict=True))
    found = binned(values, axis, CHARACTER_BINS, 0, images)
    full = [one for one in found if one.n]
    # Bins that hold everything, pooled, give the mean of everything.
    assert sum(one.n for one in full) == len(values)
    assert sum(one.n * one.mean for one in full) == pytest.approx(values.sum())
    for one in full:
        assert one.groups == 1 or one.low <= one.mean <= one.high
        assert one.groups > 1 or np.isnan([one.low, one.high]).all()
        assert one.groups <= min(one.n, len(set(images)))
    # Neither order nor the images' labels matter.
    turned = binned(values[::-1], axis[::-1], CHARACTER_BINS, 0, np.array([f"image{i}" for i in images[::-1]]))
    for one, other in zip(found, turned, strict=True):
        assert edges(one) == pytest.approx(edges(other), nan_ok=True)
    twice = binned(3 - 2 * values, axis, CHARACTER_BINS, 0, images)
    for one, other in zip(full, (one for one in twice if one.n), strict=True):
        assert edges(other)[::-1] == pytest.approx([3 - 2 * edge for edge in edges(one)], nan_ok=True)


def test_one_word_an_image_is_the_plain_bootstrap() -> None:
    values = np.random.default_rng(1).random(80)
    plain = bootstrap(values, seed=3)
    for groups in (None, np.arange(80)):
        (one,) = binned(values, np.zeros(80), ALL, 3, groups)
        assert (one.n, one.groups) == (plain.n, 80)
        assert (one.low, one.high) == pytest.approx((plain.low, plain.high), abs=1e-12)
        assert edges(mean_of_bins(values, np.zeros(80), ALL, 3, groups)) == edges(one)


def test_copies_within_an_image_are_no_evidence() -> None:
    """Nine copies of each word give the interval of one; treated as independent, they would give a third of it."""
    values, images = np.random.default_rng(1).random(80), np.arange(80)
    (once,) = binned(values, np.zeros(80), ALL, 0, images)
    (more,) = binned(np.repeat(values, 9), np.zeros(720), ALL, 0, np.repeat(images, 9))
    assert (more.n, more.groups) == (720, 80)
    assert edges(more) == pytest.approx(edges(once), abs=1e-12)
    (wrong,) = binned(np.repeat(values, 9), np.zeros(720), ALL, 0)
    assert (wrong.high - wrong.low) * 3 == pytest.approx(once.high - once.low, rel=0.1)


def test_width_by_theory() -> None:
    """Images of four words each: the standard error is that of the images' means."""
    rng = np.random.default_rng(5)
    values = rng.random((400, 1)) + rng.normal(0, 0.2, (400, 4))
    (one,) = binned(values.ravel(), np.zeros(1600), ALL, 0, np.repeat(np.arange(400), 4))
    error = values.mean(1).std() / math.sqrt(400)
    assert (one.high - one.low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_what_is_never_counted_moves_nothing(words) -> None:
    scores, axis, images = words
    more = np.concatenate([scores, [0.0, math.nan, 0.5]])
    found = more, np.concatenate([axis, [0.01, 0.03, math.nan]]), THREE, 0, np.concatenate([images, [0, 77, 99]])
    assert binned(*found) == binned(scores, axis, THREE, 0, images)
    assert mean_of_bins(*found) == mean_of_bins(scores, axis, THREE, 0, images)


def test_the_mean_weighs_bins_alike(words) -> None:
    """Its interval uses the resamples of the bins, because bins of the same images vary together."""
    scores, axis, images = words
    found, whole = binned(scores, axis, THREE, 0, images), mean_of_bins(scores, axis, THREE, 0, images)
    assert whole.mean == pytest.approx(np.mean([one.mean for one in found]), abs=1e-15)
    assert (whole.bin.low, whole.bin.high, whole.n) == (0.02, 1, 300)
    assert whole.groups == len(set(images))
    assert whole.high - whole.low > 1.2 * width_apart(found)
    found, whole = binned(scores, axis, THREE, 0), mean_of_bins(scores, axis, THREE, 0)
    assert whole.high - whole.low == pytest.approx(width_apart(found), rel=0.1)


def width_apart(found: list[BinnedMean]) -> float:
    """The width that a mean of independent means has."""
    return math.sqrt(sum((one.high - one.low) ** 2 for one in found)) / len(found)


def test_ratios_of_sums(words) -> None:
    """A character error rate, and a ratio to the ceiling."""
    truths, reads = ["abcd", "ab", "a"], ["abcx", "", "a"]
    wrong = np.array([errors(*pair) for pair in zip(truths, reads, strict=True)])
    lengths = np.array([len(truth) for truth in truths])
    (rate,) = binned(wrong, np.zeros(3), ALL, 0, per=lengths)
    assert rate.mean == 3 / 7  # not the mean of the words' rates, which is 5 / 12
    scores, axis, images = words
    for one in binned(scores / 2, axis, THREE, 0, images, per=scores):
        assert edges(one) == pytest.approx((0.5, 0.5, 0.5))  # paired: the images' own spread is in both
    (nothing,) = binned(scores, axis, ALL, 0, images, per=np.zeros(300))
    assert nothing.n == 300
    assert np.isnan(edges(nothing)).all()


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match=r"must each have shape \(n,\)"):
        binned(np.ones(3), np.ones(1), THREE, 0)
    with pytest.raises(ValueError, match=r"must each have shape \(n,\)"):
        binned(np.ones(3), np.ones(3), THREE, 0, np.ones(2))
