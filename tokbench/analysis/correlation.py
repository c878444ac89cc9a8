"""Rank correlations between metrics of tokenizers and the quality of generators trained on their tokens."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau, spearmanr

from tokbench.metric_names import kind_of_task
from tokbench.results.columns import column_of
from tokbench.results.markdown import table
from tokbench.results.result import Result

OF_TOKENIZERS = (
    "rfid", "rfid_768", "fd_efficientnet", "pfid", "pfid_768", "pfid_efficientnet", "psnr", "lpips", "codebook_entropy",
    "codebook_usage", "bits_per_image",
)  # fmt: skip
"""Numbers of a tokenizer that are correlated with those of its generators."""

OF_GENERATORS = ("gfid", "gfid_768", "fd_efficientnet")

MIN_TOKENIZERS = 5
"""Minimum number of tokenizers for an interval: with four, almost any order can occur by chance."""

RESAMPLES = 2000


@dataclass(frozen=True)
class TokenizerGeneratorPair:
    """One tokenizer and a generator trained on its tokens, with the numbers of both.

    bits: bits per token, summed over the tokenizer's codebooks; None if it has no codebook.
    """

    tokenizer: str
    generator: str
    bits: float | None
    numbers: dict[str, float]
    generated: dict[str, float]


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho and Kendall's tau-b between a tokenizer's number and a generator's, over `count` tokenizers.

    within: the group of tokenizers. rho_interval, tau_interval: 95 % bootstrap intervals over tokenizers; None for
    fewer than `MIN_TOKENIZERS`.
    """

    number: str
    generated: str
    within: str
    count: int
    rho: float
    tau: float
    rho_interval: tuple[float, float] | None
    tau_interval: tuple[float, float] | None


def pairs(results: Iterable[Result], family: str, dataset: str, task: str = "generate") -> list[TokenizerGeneratorPair]:
    """Return the tokenizers with reconstruction results on a dataset, each with its generator of one family.

    Only results under the default protocol, in float32, at the dataset's size and without a statistics file are used.
    Each number is taken at one N, because distances decrease with N: the N that most results have. Tokenizers without a
    result at that N do not get the number.
    """
    comparable = [one for one in results if one.dataset == dataset and _has_default_settings(one)]
    tokenizers = [one for one in comparable if kind_of_task(one.task) in ("reconstruct", "perturb")]
    generators = {
        one.provenance["adapter"]["tokenizer"]: one.adapter
        for one in comparable
        if one.task == task and one.adapter.partition(".")[0] == family and one.provenance["adapter"].get("tokenizer")
    }
    measured = {one.adapter for one in tokenizers}
    chosen = {tokenizer: generator for tokenizer, generator in generators.items() if tokenizer in measured}
    numbers = _at_one_count([one for one in tokenizers if one.adapter in chosen])
    generated = _at_one_count([one for one in comparable if one.task == task and one.adapter in chosen.values()])
    discrete = {
        one.adapter: one.provenance["adapter"].get("bits_per_token")
        for one in tokenizers
        if one.provenance["adapter"].get("codebook")
    }
    return [
        TokenizerGeneratorPair(
            tokenizer,
            generator,
            discrete.get(tokenizer),
            numbers.get(tokenizer, {}),
            generated.get(generator, {}),
        )
        for tokenizer, generator in sorted(chosen.items())
    ]


def _has_default_settings(result: Result) -> bool:
    provenance = result.provenance
    native_size = provenance["data"]["own_size"] in (None, provenance["data"]["width"])
    rules = provenance["protocol"]
    default_protocol = rules["name"] == "tokbench" and "reference" not in provenance and not rules.get("degrade")
    return native_size and default_protocol and provenance["precision"] == "float32"


def _at_one_count(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Return the numbers by adapter, each at the N of most adapters; of two equally common N, the larger one."""
    known: dict[str, dict[int, dict[str, float]]] = {}
    for one in results:
        for number, entry in one.metrics.items():
            if entry["value"] is not None:
                known.setdefault(number, {}).setdefault(one.num_images, {})[one.adapter] = entry["value"]
    found: dict[str, dict[str, float]] = {}
    for number, counts in known.items():
        _, values = max(counts.items(), key=lambda item: (len(item[1]), item[0]))
        for adapter, value in values.items():
            found.setdefault(adapter, {})[number] = value
    return found


def correlations(found: Sequence[TokenizerGeneratorPair], seed: int = 0) -> list[Correlation]:
    """Return the correlations of every number of tokenizers with every number of generators.

    They are computed over all pairs, and within each group of at least three tokenizers with equal bits per token
    (rounded to whole bits).
    """
    groups: list[tuple[str, list[TokenizerGeneratorPair]]] = [("all", list(found))]
    by_size = itertools.groupby(
        sorted((one for one in found if one.bits), key=lambda one: one.bits or 0), key=lambda one: round(one.bits or 0)
    )
    groups += [(f"{bits} bits a token", members) for bits, own in by_size if len(members := list(own)) >= 3]
    computed = []
    for within, members in groups:
        for number, generated in itertools.product(OF_TOKENIZERS, OF_GENERATORS):
            both = [
                (one.numbers[number], one.generated[generated])
                for one in members
                if number in one.numbers and generated in one.generated
            ]
            if len(both) >= 3 and len({first for first, _ in both}) > 1 and len({second for _, second in both}) > 1:
                computed.append(_correlation(np.array(both), number, generated, within, seed))
    return computed


def _correlation(both: np.ndarray, number: str, generated: str, within: str, seed: int) -> Correlation:
    rho, tau = _rank_correlations(both)
    if len(both) < MIN_TOKENIZERS:
        return Correlation(number, generated, within, len(both), rho, tau, None, None)
    rng = np.random.default_rng(seed)
    drawn = np.array([_rank_correlations(both[rng.integers(0, len(both), len(both))]) for _ in range(RESAMPLES)])
    low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=0)
    return Correlation(number, generated, within, len(both), rho, tau, (low[0], high[0]), (low[1], high[1]))


def _rank_correlations(both: np.ndarray) -> tuple[float, float]:
    """Return (rho, tau) of the two columns of (n, 2); NaN if a column is constant."""
    if len(np.unique(both[:, 0])) < 2 or len(np.unique(both[:, 1])) < 2:
        return float("nan"), float("nan")
    return float(spearmanr(both[:, 0], both[:, 1]).statistic), float(kendalltau(both[:, 0], both[:, 1]).statistic)


def markdown(found: Sequence[Correlation]) -> str:
    """Return a Markdown table. A number that is better when lower should rise with gFID, so its sign should be +."""
    head = ["of the tokenizer", "of the generator", "over", "n", "Spearman ρ", "Kendall τ"]
    body = []
    for one in found:
        shown = [
            f"{value:+.2f}" + (f" [{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else "")
            for value, interval in ((one.rho, one.rho_interval), (one.tau, one.tau_interval))
        ]
        titles = [column_of(name)[1].title for name in (one.number, one.generated)]
        body.append([*titles, one.within, str(one.count), *shown])
    return table(head, body, left=(0, 1, 2))
