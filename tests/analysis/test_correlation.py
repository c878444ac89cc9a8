"""Correlations over tokenizers, compared with values computed by hand, and computed from results."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from factories import make_result
from scipy.stats import kendalltau, spearmanr

from tokbench.analysis.correlation import (
    MIN_TOKENIZERS,
    TokenizerGeneratorPair,
    _rank_correlations,
    conclusion,
    correlations,
    markdown,
    pairs,
)
from tokbench.results.result import Result


def pair(name: str, first: float, second: float, bits: float | None = 10.0) -> TokenizerGeneratorPair:
    return TokenizerGeneratorPair(name, f"gpt.{name}", bits, {"rfid_768": first}, {"gfid_768": second})


@pytest.mark.slow
def test_an_order_kept_and_one_turned_round() -> None:
    same = [pair(str(i), i, i**2) for i in range(6)]
    (over_all, within) = correlations(same)
    assert (over_all.rho, over_all.tau) == pytest.approx((1, 1))
    assert over_all.count == 6
    assert (over_all.within, within.within) == ("all", "10 bits a token")
    assert over_all.rho_interval == pytest.approx((1, 1))
    turned = correlations([pair(str(i), i, -i) for i in range(6)])[0]
    assert (turned.rho, turned.tau) == pytest.approx((-1, -1))


def test_by_hand() -> None:
    """The ranks are 1 2 3 4 and 2 1 4 3: rho = 1 - 6 * 4 / (4 * 15) = 0.6, and 4 of 6 pairs agree, so tau = 1/3."""
    found = correlations([pair(str(i), i, other) for i, other in enumerate((2, 1, 4, 3))])[0]
    assert found.rho == pytest.approx(0.6)
    assert found.tau == pytest.approx(1 / 3)
    assert found.rho_interval is None  # fewer than MIN_TOKENIZERS
    assert MIN_TOKENIZERS == 5


@pytest.mark.slow
def test_an_interval_is_wide_where_there_is_nothing_to_find() -> None:
    order = (3, 7, 1, 8, 2, 6, 4, 5, 10, 9)
    found = correlations([pair(str(i), i, other) for i, other in enumerate(order)])[0]
    assert found.rho_interval is not None
    low, high = found.rho_interval
    assert low < 0 < found.rho < high
    assert high - low > 0.6


@pytest.mark.slow
def test_a_codebook_size_may_turn_what_holds_over_all() -> None:
    """Simpson's paradox: the order is reversed within each codebook size, but not over all tokenizers."""
    both = [pair(f"a{i}", i, 10 - i, 8.0) for i in range(3)] + [pair(f"b{i}", 20 + i, 40 - i, 11.97) for i in range(3)]
    found = {one.within: one.rho for one in correlations(both)}
    assert (found["8 bits a token"], found["12 bits a token"]) == pytest.approx((-1, -1))
    assert found["all"] > 0


def result(adapter: str, task: str, number: str, value: float, count: int = 100, **changes: Any) -> Result:
    facts = {"kind": "discrete", "codebook": {"codes": 512}, "bits_per_token": 9.0} | changes
    return make_result(
        adapter, {number: {"value": value}}, dataset="tiny", task=task, num_images=count, adapter_facts=facts,
        data={"width": 64, "height": 64, "own_size": 64},
    )  # fmt: skip


def test_pairs_from_results() -> None:
    results = [
        result("vq.a", "reconstruct", "rfid_768", 2.0),
        result("vq.a", "perturb", "pfid_768", 3.0),
        result("vq.b", "reconstruct", "rfid_768", 4.0),
        result("gpt.a", "generate", "gfid_768", 9.0, tokenizer="vq.a"),
        result("gpt.c", "generate", "gfid_768", 9.0, tokenizer="vq.c"),  # its tokenizer was not measured
        result("maskgit.b", "generate", "gfid_768", 9.0, tokenizer="vq.b"),  # of another family
        result("gpt.b", "generate-cfg2", "gfid_768", 9.0, tokenizer="vq.b"),  # of another task
    ]
    (found,) = pairs(results, "gpt", "tiny")
    assert (found.tokenizer, found.generator, found.bits) == ("vq.a", "gpt.a", 9.0)
    assert found.numbers == {"rfid_768": 2.0, "pfid_768": 3.0}
    assert found.generated == {"gfid_768": 9.0}


def test_a_number_is_of_one_count_in_all_pairs() -> None:
    """A generator measured twice is one pair; a tokenizer measured at another N does not get that number."""
    results = [result(f"vq.{name}", "reconstruct", "rfid_768", 1.0) for name in "abc"]
    results += [
        result("vq.a", "reconstruct", "rfid_768", 5.0, count=1000),
        result("vq.d", "reconstruct", "rfid_768", 6.0, count=1000),
    ]
    results += [result(f"gpt.{name}", "generate", "gfid_768", 9.0, tokenizer=f"vq.{name}") for name in "abcd"]
    results += [result("gpt.a", "generate", "gfid_768", 8.0, count=1000, tokenizer="vq.a")]
    found = {one.tokenizer: one for one in pairs(results, "gpt", "tiny")}
    assert len(found) == 4
    assert found["vq.a"].numbers == {"rfid_768": 1.0}
    assert found["vq.a"].generated == {"gfid_768": 9.0}
    assert found["vq.d"].numbers == {}


def test_other_protocols_and_sizes_do_not_mix() -> None:
    other = result("vq.a", "reconstruct", "rfid_768", 1.0)
    other.provenance["protocol"]["name"] = "adm"
    larger = result("vq.a", "reconstruct", "psnr", 1.0)
    larger.provenance["data"]["width"] = 128
    own = result("vq.a", "reconstruct", "lpips", 0.5)
    (found,) = pairs([other, larger, own, result("gpt.a", "generate", "gfid", 9.0, tokenizer="vq.a")], "gpt", "tiny")
    assert found.numbers == {"lpips": 0.5}


@pytest.mark.slow
def test_the_table_tells_signs_and_counts() -> None:
    text = markdown(correlations([pair(str(i), i, i) for i in range(6)]))
    assert "rFID-768" in text
    assert "gFID-768" in text
    assert "+1.00 [+1.00, +1.00]" in text
    assert "| 6 |" in text


def test_seeds_of_one_generator_are_averaged() -> None:
    results = [result("vq.a", "reconstruct", "rfid_768", 2.0)]
    results += [
        result(f"gpt.a{end}", "generate", "gfid_768", value, tokenizer="vq.a")
        for end, value in (("", 8.0), ("_seed1", 9.0), ("_seed2", 13.0))
    ]
    (found,) = pairs(results, "gpt", "tiny")
    assert (found.generator, found.generated) == ("gpt.a", {"gfid_768": 10.0})
    assert [one["gfid_768"] for one in found.seeds] == [8.0, 9.0, 13.0]


def test_a_generator_of_a_tokenizer_with_another_seed_is_no_seed_of_the_generator() -> None:
    results = []
    for end, value in (("", 8.0), ("_seed1", 12.0)):
        results += [
            result(f"vq.a{end}", "reconstruct", "rfid_768", value),
            result(f"gpt.vq_a{end}", "generate", "gfid_768", value, tokenizer=f"vq.a{end}"),
        ]
    found = {one.tokenizer: one for one in pairs(results, "gpt", "tiny")}
    assert {name: one.generated for name, one in found.items()} == {
        "vq.a": {"gfid_768": 8.0}, "vq.a_seed1": {"gfid_768": 12.0},
    }  # fmt: skip
    assert not any(one.seeds for one in found.values())


@pytest.mark.slow
def test_seeds_that_change_the_order_widen_the_interval() -> None:
    def interval(spread: float) -> tuple[float, float]:
        found = [
            replace(pair(str(i), i, i, None), seeds=({"gfid_768": i - spread}, {"gfid_768": i + spread}))
            for i in range(6)
        ]
        (one,) = correlations(found)
        assert one.rho_interval is not None
        return one.rho_interval

    assert interval(0.1) == pytest.approx((1, 1))
    assert interval(6)[0] < 0.9


@pytest.mark.slow
def test_the_conclusion_names_what_is_shown_and_what_is_not() -> None:
    def numbers(i: int) -> dict[str, float]:
        return {"rfid_768": i, "psnr": i, "lds": (3, 7, 1, 8, 2, 6)[i]}

    found = [replace(pair(str(i), i, i, None), numbers=numbers(i)) for i in range(6)]
    text = conclusion(correlations(found))
    assert "gFID-768 is ranked alike by rFID-768." in text
    assert "The opposite order is shown for PSNR." in text  # a higher PSNR with a higher gFID
    assert "Nothing is shown (the interval contains 0) for LDS." in text
    assert "By chance alone, 0.1 of 3 intervals would exclude 0." in text
    undirected = [replace(one, numbers={"lds": -one.numbers["rfid_768"]}) for one in found]
    assert "gFID-768 is ranked alike by LDS (ρ -1.00)." in conclusion(correlations(undirected))
    null = [replace(one, numbers={"lds": one.numbers["lds"]}) for one in found]
    assert conclusion(correlations(null)).startswith("- No number is shown to rank these tokenizers as gFID-768 does.")
    assert conclusion(correlations(found[:3])) == ""


def test_rank_correlations_equal_those_of_scipy() -> None:
    """With ties, which both treat alike; a constant column has none."""
    tables = np.random.default_rng(0).integers(0, 5, (20, 8, 2)).astype(float)
    rho, tau = _rank_correlations(tables)
    assert rho == pytest.approx([spearmanr(*table.T).statistic for table in tables])
    assert tau == pytest.approx([kendalltau(*table.T).statistic for table in tables])
    assert np.isnan(_rank_correlations(np.ones((1, 4, 2)))).all()
