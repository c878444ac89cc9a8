"""Intervals of every kind hold what they should, as often as they say; `benchmarks/coverage.py` is what measures it."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from checkout import ROOT
from scipy.stats import binomtest
from torch_fidelity.metric_isc import isc_features_to_metric

from tokbench.analysis.compare import difference
from tokbench.errors import ResultError
from tokbench.evaluation.metric_set import MetricValues
from tokbench.metrics.batch import Batch
from tokbench.metrics.codebook import Codebook
from tokbench.metrics.inception_score import InceptionScore
from tokbench.metrics.psnr import PSNR
from tokbench.protocol.protocol import TOKBENCH, load_protocol
from tokbench.results.result import load
from tokbench.stats.binned import Bin, binned, mean_of_bins
from tokbench.stats.bootstrap import DERIVED, bootstrap, bootstrap_pairs, share_bound, share_interval
from tokbench.stats.split_half import SplitHalves
from tokbench.stats.spread import Distinct, Jackknife, Splits, groups
from tokbench.tokenizers.tokens import Tokens

COVERAGE = runpy.run_path(str(ROOT / "benchmarks" / "coverage.py"))
KINDS = COVERAGE["kinds"]()
PROVENANCE = {
    "adapter": {"kind": "discrete"}, "protocol": {"name": "tokbench", "sha256": "p"}, "seed": 0, "device": "cpu",
    "data": {"sha256": "d", "width": 8, "height": 8, "own_size": 8, "limit": None}, "precision": "float32",
}  # fmt: skip


def simulated(name: str, count: int, draws: int) -> dict[str, object]:
    return {one.number: one for one in COVERAGE["simulate"](name, KINDS[name], count, draws)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count", "draws"),
    [
        ("psnr", 20, 300), ("lpips", 5, 300), ("inception_score", 100, 100), ("inception_score", 300, 100),
        ("codebook", 20, 100), ("codebook", 100, 100), ("codebook_whole", 28, 100), ("codebook_half", 20, 100),
        ("codebook_rare_1", 20, 200), ("codebook_rare_5", 20, 100), ("words_0.005", 20, 200), ("words_0.995", 100, 100),
        ("top1_0.005", 100, 300), ("top1_0.995", 100, 300),
    ],
)  # fmt: skip
def test_coverage_and_false_alarms(name: str, count: int, draws: int) -> None:
    """95 % should be covered and 5 % false alarms; over 100 draws each has a standard error of 2.2 %."""
    error = math.sqrt(0.05 * 0.95 / draws)
    for one in simulated(name, count, draws).values():
        assert one.coverage >= 0.95 - 0.02 - 2.5 * error, one
        assert math.isnan(one.alarms) or one.alarms <= 0.05 + 0.02 + 2.5 * error, one


def score(count: int, protocol: object = TOKBENCH, seed: int = 0) -> InceptionScore:
    rng = np.random.default_rng(seed)
    metric = InceptionScore("inception_score", COVERAGE["UnusedExtractor"](), "x", protocol)
    logits = rng.normal(size=(count, 30)) + 4 * np.eye(30)[rng.integers(0, 30, count)]
    metric.rows.add(np.arange(count), {"image": logits.astype(np.float32)})
    return metric


def numbers_of(metric: object, count: int, key: str = "data") -> MetricValues:
    found = MetricValues()
    found.add_metric(metric, 0, SplitHalves(key, count))
    return found


@pytest.mark.parametrize("count", [200, 457])
def test_inception_score_of_ten_splits_is_torch_fidelitys(count: int) -> None:
    metric = score(count)
    logits = torch.from_numpy(metric.rows.column("image"))
    theirs = isc_features_to_metric(logits, splits=10, shuffle=True)["inception_score_mean"]
    assert metric.compute()["inception_score"] == pytest.approx(theirs, rel=1e-12)
    made = metric.replicates(SplitHalves("data", count))["inception_score"]
    assert isinstance(made, Splits)
    assert len(made.values) == 10
    assert made.values.mean() == pytest.approx(theirs, rel=1e-12)
    assert made.deviation == pytest.approx(made.values.std(ddof=1) / math.sqrt(10))
    assert "splits" not in metric.provenance()


@pytest.mark.parametrize("count", [25, 40, 199])
def test_few_images_are_one_split_which_is_stated(count: int) -> None:
    """Ten images in ten splits would have a score of exactly 1 whatever they show."""
    metric = score(count)
    logits = torch.from_numpy(metric.rows.column("image"))
    theirs = isc_features_to_metric(logits, splits=1, shuffle=False)["inception_score_mean"]
    found = numbers_of(metric, count)
    assert found.values["inception_score"]["value"] == pytest.approx(theirs, rel=1e-9)
    assert theirs > 2
    assert found.provenance["inception_score"]["splits"] == "1, since 10 need 200 images or more"
    made = found.replicates["inception_score"]
    assert isinstance(made, Jackknife)
    assert len(made.values) == min(25, count)
    assert found.values["inception_score"]["low"] < theirs < found.values["inception_score"]["high"]


def test_inception_score_in_parts_of_a_protocol() -> None:
    """ADM's parts are taken as they come; with fewer images than a part there is one, as the protocol states."""
    protocol = load_protocol("adm")
    metric = score(300, protocol.with_changes("adm", inception_score__split_size=100))
    assert len(metric.replicates(SplitHalves("data", 300))["inception_score"].values) == 3
    whole = score(300, protocol)
    assert isinstance(whole.replicates(SplitHalves("data", 300))["inception_score"], Jackknife)
    assert "splits" not in whole.provenance()


@pytest.mark.parametrize(
    ("count", "sizes", "stated"),
    [
        (100, [100], None), (200, [100, 100], None), (60, [60], None),
        (101, [100], "1 of 100; 1 last images are fewer than half a split"),
        (249, [100, 100], "2 of 100; 49 last images are fewer than half a split"),
        (250, [100, 100, 50], "2 of 100 and one of 50"),
    ],
)  # fmt: skip
def test_a_small_last_part_is_no_split(count: int, sizes: list[int], stated: str | None) -> None:
    """A part of one image has a score of 1, and would halve that of 100 others."""
    metric = score(count, load_protocol("adm").with_changes("adm", inception_score__split_size=100))
    logits, start, expected = torch.from_numpy(metric.rows.column("image")), 0, []
    for size in sizes:
        part = logits[start : start + size]
        expected.append(isc_features_to_metric(part, splits=1, shuffle=False)["inception_score_mean"])
        start += size
    assert metric.compute()["inception_score"] == pytest.approx(np.mean(expected), rel=1e-9)
    assert metric.provenance().get("splits") == stated
    assert len(metric.replicates(SplitHalves("data", count))["inception_score"].values) == (
        len(sizes) if sizes[1:] else 25
    )


@pytest.mark.parametrize(("count", "classes"), [(11, 11), (60, 60), (200, 200), (12, 2)])
def test_an_inception_score_whose_parts_must_agree_has_no_interval(count: int, classes: int) -> None:
    """If each image shows its own class, leaving out any one lowers the score equally. Few images have none too."""
    metric = InceptionScore("inception_score", COVERAGE["UnusedExtractor"](), "x")
    logits = 30 * np.eye(classes)[np.arange(count) % classes]
    metric.rows.add(np.arange(count), {"image": logits.astype(np.float32)})
    found = numbers_of(metric, count)
    assert found.values["inception_score"]["low"] is None
    assert found.replicates == {}
    (warning,) = found.warnings
    assert "inception_score has no interval" in warning.text
    assert score(200).warnings() == []


def test_codebook_numbers_without_an_image_are_those_of_the_others() -> None:
    """Also with groups, several tokens an image, and images of unequal length."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 9, (12, 10, 2), generator=generator) * 1000
    length = torch.randint(3, 11, (12,), generator=generator)
    whole = Codebook()
    for some in (slice(0, 5), slice(5, 12)):
        tokens = Tokens.from_indices(codes[some], 10_000, groups=2, length=length[some])
        whole.update(Batch(torch.arange(12)[some], tokens=tokens))
    replicates = whole.replicates(SplitHalves("data", 12))
    for image in range(12):
        rest = [other for other in range(12) if other != image]
        part = Codebook()
        part.update(
            Batch(torch.arange(11), tokens=Tokens.from_indices(codes[rest], 10_000, groups=2, length=length[rest]))
        )
        for number, value in part.compute().items():
            assert replicates[number].values[image] == pytest.approx(value)


def test_the_deviation_of_usage_is_that_of_codes_that_one_image_has() -> None:
    """(N - 1) / N times the sum of squares of u - mean u, over K squared, with u the codes that one image alone has."""
    codes = torch.tensor([[0, 1, 2, 3], [0, 1, 4, 4], [0, 0, 0, 0], [5, 6, 7, 0], [1, 1, 8, 0]])
    metric = Codebook()
    metric.update(Batch(torch.arange(5), tokens=Tokens.from_indices(codes, 16)))
    alone = np.array([2, 1, 0, 3, 1])
    made = metric.replicates(SplitHalves("data", 5))["codebook_usage"]
    assert made.deviation == pytest.approx(math.sqrt(4 / 5 * ((alone - alone.mean()) ** 2).sum()) / 16)


def test_usage_of_a_whole_codebook_has_an_interval() -> None:
    """Each of 16 codes stands in three of twelve images: as many images drawn anew would miss some, so that not all is
    known to be used. In thousands of images that is no longer so."""
    codes = torch.arange(16).repeat(3).reshape(12, 4)[torch.randperm(12, generator=torch.Generator().manual_seed(0))]
    least = binomtest(3, 12).proportion_ci(0.95, "exact").low
    for times, missed in ((1, -math.log(0.025) / 16), (100, 0)):
        metric, count = Codebook(), 12 * times
        metric.update(Batch(torch.arange(count), tokens=Tokens.from_indices(codes.repeat(times, 1), 16)))
        found = numbers_of(metric, count).values["codebook_usage"]
        assert (found["value"], found["high"]) == (1, 1)
        assert found["low"] == pytest.approx(1 - missed, abs=1e-9)
    assert 16 * (1 - least) ** 12 > -math.log(0.025)  # so many entries may be missed that the bound of 3.7 holds


def codebook_of(codes: torch.Tensor, size: int) -> Codebook:
    metric = Codebook()
    metric.update(Batch(torch.arange(len(codes)), tokens=Tokens.from_indices(codes, size)))
    return metric


def test_usage_without_singletons_reaches_to_entries_that_other_images_may_show() -> None:
    """Twelve images hold the same two of 8 entries: the six others, of which none was seen, have an expected number of
    6 (1 - 0.025^(1/6)) at most. The two are in every image, and so are hardly missed."""
    found = numbers_of(codebook_of(torch.tensor([[0, 1]]).repeat(12, 1), 8), 12).values["codebook_usage"]
    assert found["high"] == pytest.approx((2 + 6 * (1 - 0.025 ** (1 / 6))) / 8)
    assert found["low"] == pytest.approx(2 / 8, abs=1e-5)


def test_codebooks_without_singletons_differ_only_beyond_chance(tmp_path: Path) -> None:
    """Also from their files. No entry stands in one image alone, so leaving out images shows nothing."""
    loaded = []
    for name, used in (("whole", 64), ("two_fewer", 62), ("half", 32), ("whole_otherwise", 64)):
        codes = torch.arange(256).reshape(16, 16) % used
        if name == "whole_otherwise":
            codes[0] = codes[1]
        made = COVERAGE["_result"](codebook_of(codes, 64), SplitHalves("data", 16), 16)
        made.adapter = name
        made.provenance |= PROVENANCE
        loaded.append(load(made.save(tmp_path)[0]))
    whole, fewer, half, otherwise = loaded
    assert isinstance(whole.replicates["codebook_usage"], Distinct)
    assert difference("codebook_usage", whole, fewer).verdict == "cannot tell"
    assert difference("codebook_usage", whole, half).verdict == "worse"
    assert difference("codebook_usage", half, whole).verdict == "better"
    assert difference("codebook_usage", whole, whole).verdict == "same"
    assert difference("codebook_usage", whole, otherwise).verdict == "cannot tell"  # both use all, of other images


def test_a_jackknife_of_usage_is_no_error_bar(tmp_path: Path) -> None:
    """Results of earlier versions keep no more of usage, which has no width where no entry is in one image alone."""
    made = COVERAGE["_result"](codebook_of(torch.arange(64).reshape(8, 8) % 16, 16), SplitHalves("data", 8), 8)
    made.provenance |= PROVENANCE
    found = []
    for adapter, usage in (("one", 1.0), ("other", 0.9)):
        made.adapter, made.metrics["codebook_usage"]["value"] = adapter, usage
        made.replicates["codebook_usage"] = Jackknife(np.full(8, usage))
        found.append(load(made.save(tmp_path)[0]))
        assert "perplexity" in found[-1].replicates
    assert difference("codebook_usage", *found).verdict == "no error bar"


def test_one_image_has_no_interval() -> None:
    metric = Codebook()
    metric.update(Batch(torch.arange(1), tokens=Tokens.from_indices(torch.tensor([[0, 0, 1, 2]]), 8)))
    assert metric.replicates(SplitHalves("data", 1)) == {}
    assert math.isnan(bootstrap(np.array([30.0]), 0).low)
    assert math.isnan(bootstrap_pairs(np.array([30.0]), np.array([31.0]), 0).high)
    (one,) = binned(np.array([0.3, 0.4]), np.zeros(2), [Bin("all", 0, 1)], 0, np.array([7, 7]))
    assert math.isnan(one.low)
    for value in (0.0, 0.5, 1.0):
        (one,) = binned(np.array([value, value]), np.zeros(2), [Bin("all", 0, 1)], 0, np.array([7, 7]), share=True)
        assert (one.mean, math.isnan(one.low), math.isnan(one.high)) == (value, True, True)
    assert math.isnan(share_interval(np.ones(1)).low)


def test_few_images_have_students_interval() -> None:
    from scipy.stats import t

    values = np.random.default_rng(0).normal(30, 3, 20)
    theirs = t.interval(0.95, 19, values.mean(), values.std(ddof=1) / math.sqrt(20))
    found = bootstrap(np.append(values, np.nan), 0)
    assert (found.low, found.high, found.n) == (pytest.approx(theirs[0]), pytest.approx(theirs[1]), 20)
    gaps = values - values[::-1] ** 1.1
    paired = bootstrap_pairs(values[::-1] ** 1.1, values, 0)
    theirs = t.interval(0.95, 19, gaps.mean(), gaps.std(ddof=1) / math.sqrt(20))
    assert (paired.low, paired.high) == pytest.approx(theirs)


def test_few_images_of_a_number_that_is_no_plain_mean() -> None:
    """The PSNR of pooled errors: by the delta method its deviation is 10 / ln 10 times the relative one of the MSE."""
    errors = np.random.default_rng(0).gamma(20, 5, 40)
    how = DERIVED["psnr"]
    found = bootstrap(errors, 0, how)
    deviation = 10 / math.log(10) * errors.std(ddof=1) / math.sqrt(40) / errors.mean()
    centre = how.of(errors.mean())
    for reach in (centre - found.low, found.high - centre):
        assert 2.0226 * deviation <= reach < 1.2 * 2.0227 * deviation


def test_a_pooled_psnr_of_nearly_exact_images_has_no_interval() -> None:
    """With one of 60 images changed, a third of all resamples are exact, whose PSNR is infinite."""
    for changed, some in ((1, False), (4, False), (5, True), (60, True)):
        metric = PSNR(load_protocol("vtbench"))
        errors = np.where(np.arange(60) < changed, 1.0 + np.arange(60) % 7, 0.0)
        metric.rows.add(np.arange(60), {"mse": errors})
        found = numbers_of(metric, 60)
        entry = found.values["psnr"]
        assert (entry["low"] is not None, entry["high"] is not None) == (some, some)
        assert not some or entry["low"] < entry["value"] < entry["high"]
        assert ["psnr has no interval" in one.text for one in found.warnings] == [True] * (not some)
    pair = bootstrap_pairs(errors, np.where(np.arange(60) < 3, errors, 0), 0, DERIVED["psnr"])
    assert math.isnan(pair.low)
    assert bootstrap_pairs(errors, errors, 0, DERIVED["psnr"]).high == 0


def test_equal_values_have_no_spread() -> None:
    for count in (2, 49, 50):
        found = bootstrap(np.full(count, 0.1), 0)
        assert found.high - found.low == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("ones", [0, 1, 173, 346])
def test_shares_are_clopper_and_pearsons(ones: int) -> None:
    values = (np.arange(346) < ones).astype(float)
    theirs = binomtest(ones, 346).proportion_ci(0.95, "exact")
    found = share_interval(values)
    assert (found.low, found.high, found.n) == (pytest.approx(theirs.low), pytest.approx(theirs.high), 346)
    if ones == 0:
        assert found.high == pytest.approx(share_bound(346))


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("images", [3, 30, 100])
def test_a_share_on_which_all_words_agree_is_not_known_for_sure(value: float, images: int) -> None:
    """Words of one image count as one: they may be lost together."""
    image = np.repeat(np.arange(images), 4)
    axis = np.tile([0.02, 0.035, 0.5, 0.5], images)
    three = [Bin("small", 0.02, 0.03), Bin("medium", 0.03, 0.04), Bin("large", 0.04, 1)]
    given = np.full(4 * images, value), axis, three, 0, image
    for one in (*binned(*given, share=True), mean_of_bins(*given, share=True)):
        assert one.mean == value
        assert abs(one.low - one.high) == pytest.approx(share_bound(images))
        assert value in (one.low, one.high)
    for one in (*binned(*given), mean_of_bins(*given)):  # of what is no share nothing is known but its values
        assert one.high == pytest.approx(one.low)
    ratio = binned(given[0], axis, three, 0, image, np.ones(4 * images), share=True)
    assert all(one.high - one.low >= share_bound(images) * 0.99 for one in ratio)


def test_two_codecs_with_the_same_codes_are_the_same() -> None:
    made = []
    for _ in range(2):
        metric = Codebook()
        codes = torch.randint(0, 50, (40, 8), generator=torch.Generator().manual_seed(3))
        metric.update(Batch(torch.arange(40), tokens=Tokens.from_indices(codes, 64)))
        made.append(COVERAGE["_result"](metric, SplitHalves("data", 40), 40))
    assert {difference(number, *made).verdict for number in made[0].metrics} == {"same"}


def test_groups_are_equal_random_and_follow_from_the_data() -> None:
    found = groups("data", 107)
    assert sorted(np.bincount(found).tolist()) == [4] * 18 + [5] * 7
    np.testing.assert_array_equal(found, groups("data", 107))
    assert (found != groups("other", 107)).any()
    assert (np.diff(found) < 0).any()
    assert len(np.unique(groups("data", 9))) == 9


def test_replicates_of_every_kind_are_kept(tmp_path: Path) -> None:
    """Two results are then compared from their files."""
    made = COVERAGE["_result"](score(300), SplitHalves("data", 300), 300)
    made.replicates["perplexity"] = Jackknife(np.array([0.1, 0.2, 0.3]))
    made.provenance |= PROVENANCE
    path, _ = made.save(tmp_path)
    again = load(path)
    assert {name: type(one) for name, one in again.replicates.items()} == {
        "inception_score": Splits, "perplexity": Jackknife,
    }  # fmt: skip
    np.testing.assert_array_equal(again.replicates["perplexity"].values, [0.1, 0.2, 0.3])
    assert difference("inception_score", again, again).verdict == "same"


def test_replicates_of_another_kind_or_number_are_not_compared() -> None:
    first, second = (COVERAGE["_result"](score(300, seed=seed), SplitHalves("data", 300), 300) for seed in (0, 1))
    assert difference("inception_score", first, second).verdict in ("cannot tell", "better", "worse")
    second.replicates["inception_score"] = Jackknife(np.arange(10.0))
    assert difference("inception_score", first, second).verdict == "no error bar"
    second.replicates["inception_score"] = Splits(np.arange(9.0))
    assert difference("inception_score", first, second).verdict == "no error bar"


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"jackknife.x": np.zeros((3, 2))}, "shape"), ({"splits.x": np.zeros(1)}, "shape"),
        ({"splits.x": np.array(["a", "b"])}, "must contain numbers"),
        ({"jackknife.x": np.zeros(3), "splits.x": np.zeros(3)}, "two kinds"),
    ],
)  # fmt: skip
def test_replicates_that_do_not_fit_are_named(tmp_path: Path, arrays: dict, complaint: str) -> None:
    path = ROOT / "results" / "jpeg.q50" / "samples-reconstruct.json"
    (tmp_path / "x.json").write_text(json.dumps(json.loads(path.read_text())))
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ResultError, match=complaint):
        load(tmp_path / "x.json")
