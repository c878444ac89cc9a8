"""Statistics of how evenly codes are used, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from tokbench.metrics.batch import Batch
from tokbench.metrics.uniformity import Uniformity
from tokbench.stats.split_half import SplitHalves
from tokbench.tokenizers.tokens import Tokens


def measured(codes: torch.Tensor, size: int, groups: int = 1) -> Uniformity:
    metric = Uniformity()
    metric.update(Batch(torch.arange(len(codes)), tokens=Tokens.from_indices(codes, size, groups=groups)))
    return metric


def test_by_hand() -> None:
    """Of four codes one occurs twice, two once: mean 1, variance 1/2, entropy 3/2 of 2 bits; Gini by its definition,
    half of the mean absolute difference over all pairs, divided by the mean: 12 / 16 / 2."""
    numbers = measured(torch.tensor([[0, 1], [0, 2]]), 4).compute()
    assert numbers["code_density_cv"] == pytest.approx(math.sqrt(0.5))
    assert numbers["normalized_entropy"] == pytest.approx(0.75)
    assert numbers["code_gini"] == pytest.approx(0.375)


@pytest.mark.parametrize(("codes", "cv", "entropy", "gini"), [([0, 1, 2, 3], 0, 1, 0), ([1] * 4, 3**0.5, 0, 0.75)])
def test_extremes(codes: list[int], cv: float, entropy: float, gini: float) -> None:
    numbers = measured(torch.tensor([codes]), 4).compute()
    assert list(numbers.values()) == [pytest.approx(value, abs=1e-12) for value in (cv, entropy, gini)]


def test_codebooks_of_groups_are_averaged() -> None:
    """The first codebook is used evenly, of the second only one entry."""
    codes = torch.stack([torch.arange(4), torch.zeros(4, dtype=torch.int64)], 1)[None]
    numbers = measured(codes, 4, groups=2).compute()
    assert numbers["normalized_entropy"] == pytest.approx(0.5)
    assert numbers["code_gini"] == pytest.approx(0.375)


def test_streams_are_named() -> None:
    metric, streams = Uniformity(), {"sem": torch.zeros(1, 4).long(), "pix": torch.arange(4)[None]}
    metric.update(Batch(torch.arange(1), tokens=Tokens.from_indices(streams, {"sem": 4, "pix": 4})))
    numbers = metric.compute()
    assert (numbers["code_gini.sem"], numbers["code_gini.pix"]) == (pytest.approx(0.75), pytest.approx(0))
    assert len(numbers) == 6


def test_intervals_cover_the_spread_between_samples() -> None:
    """The standard error of the jackknife is near the deviation of the numbers over independent sets of images."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.linspace(1, 3, 16)
    sets = [torch.multinomial(weights, 100 * 8, True, generator=generator).view(100, 8) for _ in range(40)]
    values = torch.tensor([list(measured(codes, 16).compute().values()) for codes in sets])
    spreads = measured(sets[0], 16).replicates(SplitHalves("data", 0)).values()
    for spread, observed in zip(spreads, values.std(0).tolist(), strict=True):
        assert spread.deviation == pytest.approx(observed, rel=0.5)
