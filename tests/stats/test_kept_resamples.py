"""Resamples that are kept between calls give the same numbers as drawing every resample anew."""

from __future__ import annotations

import numpy as np
import pytest
from factories import image_columns, make_result

from tokbench.analysis.compare import difference, differs_clearly
from tokbench.results.result import Result
from tokbench.stats import bootstrap as module
from tokbench.stats.bootstrap import DERIVED, MEAN, MeanStatistic, bootstrap, bootstrap_pairs, mean, percentile_interval

RATIO = DERIVED["compression_ratio"]


@pytest.mark.parametrize("how", [MEAN, RATIO], ids=["mean", "ratio"])
@pytest.mark.parametrize(("count", "kind"), [(50, "float64"), (777, "float32"), (2100, "float64")])
def test_intervals_are_those_of_one_draw_after_the_other(count: int, kind: str, how: MeanStatistic) -> None:
    """2,100 images are more than are kept. A repeated call reads what the first one kept."""
    drawn = np.random.default_rng(1)
    first = drawn.uniform(1, 9, count).astype(kind)
    second = (first + drawn.normal(0.1, 0.2, count)).astype(kind)
    rng = np.random.default_rng(7)
    means = []
    for _ in range(1000):
        chosen = rng.integers(0, count, count)
        means.append((how.of(first[chosen].mean()), how.of(second[chosen].mean())))
    centre = how.of(mean(first))
    gap = how.of(mean(second)) - centre
    for _ in range(2):
        alone, pair = bootstrap(first, 7, how), bootstrap_pairs(first, second, 7, how)
        assert (alone.low, alone.high) == percentile_interval([ours for ours, _ in means], centre)
        assert (pair.low, pair.high) == percentile_interval([theirs - ours for ours, theirs in means], gap)


def test_one_row_is_resampled_once_for_a_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    plain = module._draws

    def counted(count: int, seed: int):
        calls.append(count)
        return plain(count, seed)

    monkeypatch.setattr(module, "_draws", counted)
    drawn = np.random.default_rng(3)
    best, *others = drawn.normal(30, 5, (6, 150))
    for other in others:
        bootstrap_pairs(best, other, 0)
    assert calls == [150] * 6


def measured(values: np.ndarray) -> Result:
    metrics = {"psnr": {"value": float(np.nanmean(values))}}
    return make_result("a.b", metrics, num_images=len(values), per_image=image_columns(len(values), psnr=values))


def test_clear_differences_are_those_whose_interval_excludes_zero() -> None:
    """No pair whose interval contains 0 is called clear, also with heavy tails; far ones are."""
    drawn = np.random.default_rng(5)
    clear = 0
    for number in range(60):
        each = drawn.standard_t(2, 60) if number % 2 else drawn.normal(0, 1, 60)
        first = drawn.normal(30, 5, 60)
        one, other = measured(first), measured(first + each + drawn.uniform(-4, 4))
        if differs_clearly("psnr", one, other):
            clear += 1
            assert difference("psnr", one, other).verdict in ("better", "worse")
    assert 5 <= clear <= 55
    few = first[:49]
    assert not differs_clearly("psnr", measured(few), measured(few + 9))  # Student's t decides there
    exact = first + 9
    exact[3] = np.nan
    assert not differs_clearly("psnr", measured(first), measured(exact))
    assert not differs_clearly("psnr", measured(first), measured(first))
    assert differs_clearly("psnr", measured(first), measured(first + 9))
