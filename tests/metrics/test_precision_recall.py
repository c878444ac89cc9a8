"""Precision and recall of samples: by hand, by brute force, and against torch-fidelity."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tokbench.metrics.frechet import Subsets, distance_of_sets
from tokbench.metrics.precision_recall import PrecisionRecall


def test_precision_is_of_samples_and_recall_of_references() -> None:
    draw = np.random.default_rng(0)
    one, other = draw.normal(0, 1, (200, 8)), draw.normal(50, 1, (200, 8))
    both = np.concatenate([one, other]).astype(np.float32)
    again = draw.normal(0, 1, (200, 8)).astype(np.float32)
    measure = PrecisionRecall.both
    precision, recall = measure(None, both, again)  # type: ignore[arg-type]
    assert precision > 0.8  # samples that cover one of two clusters are good,
    assert 0.4 < recall <= 0.5  # and miss the other
    precision, recall = measure(None, again, both)  # type: ignore[arg-type]
    assert 0.4 < precision <= 0.5
    assert recall > 0.8


def both(reference: np.ndarray, image: np.ndarray) -> tuple[float, float]:
    return PrecisionRecall.both(None, reference, image)  # type: ignore[arg-type]


@pytest.mark.parametrize("block", [7, 50, 2048])
@pytest.mark.parametrize("copies", [0, 3, 5])
def test_precision_by_brute_force(monkeypatch: pytest.MonkeyPatch, block: int, copies: int) -> None:
    """However many vectors are compared at once, and with copies among the references and the samples."""
    monkeypatch.setattr("tokbench.metrics.precision_recall.BLOCK", block)
    draw = np.random.default_rng(1)
    reference, image = draw.normal(0, 1, (60, 4)), draw.normal(0.5, 1.2, (50, 4))
    reference[10 : 10 + copies], image[20 : 20 + copies], image[40 : 40 + copies] = reference[0], image[0], reference[1]
    reference, image = reference.astype(np.float32), image.astype(np.float32)

    assert both(reference, image) == (within(image, reference), within(reference, image))


def within(of_these: np.ndarray, balls: np.ndarray) -> float:
    """The share of vectors that lie in the neighbourhood of some ball's centre, k = 3, by their differences."""
    of_these, balls = of_these.astype(np.longdouble), balls.astype(np.longdouble)
    radii = [sorted(((balls - centre) ** 2).sum(1))[3] for centre in balls]  # the nearest is itself
    inside = [(((balls - point) ** 2).sum(1) <= radii).any() for point in of_these]
    return float(np.mean(inside))


@pytest.mark.parametrize("dimensions", [3, 64])
def test_equal_distances_are_within_whatever_rounding_says(dimensions: int) -> None:
    """Vectors of whole numbers have many distances that are equal, and differences give them exactly."""
    draw = np.random.default_rng(2)
    for _ in range(10):
        reference, image = (draw.integers(0, 4, (count, dimensions)).astype(np.float32) for count in (61, 47))
        image += 1  # the two meet at their edges
        assert both(reference, image) == (within(image, reference), within(reference, image))


@pytest.mark.parametrize("count", [4, 9])
def test_copies_of_one_reference_have_no_neighbourhood(count: int) -> None:
    """More than k copies: a radius of exactly 0, within which lies only what equals them. In float32 by a product of
    matrices their distances are some thousandths, and samples as near as that would count."""
    draw = np.random.default_rng(5)
    one = np.abs(draw.normal(0.4, 0.3, 2048)).astype(np.float32)
    reference = np.repeat(one[None], count, axis=0)
    near = one + (1e-5 * draw.normal(size=(40, 2048))).astype(np.float32)
    assert (near != one).any(1).all()
    assert both(reference, near)[0] == 0
    assert both(reference, reference[:4]) == (1, 1)
    reference[:, 0] = 0.0
    copy = reference[:4].copy()
    copy[:, 0] = -0.0  # equal all the same
    assert both(reference, copy) == (1, 1)
    assert both(near[:4], reference)[1] == 0


@pytest.mark.parametrize("dimensions", [16, 2048])
def test_precision_and_recall_are_torch_fidelitys(dimensions: int) -> None:
    """Where no distances are equal: its shares are rounded to float32."""
    library = pytest.importorskip("torch_fidelity.metric_prc")
    draw = np.random.default_rng(6)
    mix = draw.normal(size=(6, dimensions))
    reference, image = (
        np.maximum(draw.normal(0, spread, (count, 6)) @ mix + draw.normal(0, 0.1, (count, dimensions)), 0)
        for count, spread in ((300, 1.0), (260, 1.1))
    )
    given = [torch.from_numpy(rows.astype(np.float32)) for rows in (image, reference)]
    found = library.prc_features_to_metric(*given, prc_neighborhood=3, prc_batch_size=100, verbose=False)
    ours = both(given[1].numpy(), given[0].numpy())
    assert min(ours) > 0.2 and max(ours) < 1
    assert ours == pytest.approx((found["precision"], found["recall"]), abs=1e-7)


def test_subsets_of_unequal_numbers() -> None:
    draw = np.random.default_rng(2)
    first, second = draw.normal(0, 1, (30, 64)), draw.normal(0.2, 1.1, (44, 64))
    one, other = draw.permutation(30)[:15], draw.permutation(44)[:22]
    expected = distance_of_sets(first[one], second[other])
    found = Subsets(first, second).distances(one[None], other[None])
    assert found == pytest.approx(expected, rel=1e-9)
