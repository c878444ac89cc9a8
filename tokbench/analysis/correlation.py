"""What of a tokenizer goes with the quality of generators over it: rank correlations over tokenizers trained alike."""

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
"""Numbers of a tokenizer that are held against those of generators over it."""

OF_GENERATORS = ("gfid", "gfid_768", "fd_efficientnet")

LEAST = 5
"""Tokenizers below which no interval is told: almost any order of four can come by chance."""

DRAWS = 2000


@dataclass(frozen=True)
class TokenizerGeneratorPair:
    """One tokenizer, and a generator over it: their numbers, and the bits of one of the tokenizer's tokens, of all its
    codebooks together (None: it has none)."""

    tokenizer: str
    generator: str
    bits: float | None
    numbers: dict[str, float]
    generated: dict[str, float]


@dataclass(frozen=True)
class Correlation:
    """Of a tokenizer's number with a generator's over `count` tokenizers: Spearman's rho and Kendall's tau-b, each with
    the 95 % interval of drawing tokenizers anew (None below `LEAST`)."""

    number: str
    generated: str
    within: str
    count: int
    rho: float
    tau: float
    rho_interval: tuple[float, float] | None
    tau_interval: tuple[float, float] | None


def pairs(results: Iterable[Result], family: str, dataset: str, task: str = "generate") -> list[TokenizerGeneratorPair]:
    """Tokenizers with reconstruction results on a dataset, and the generators of one family over them: one a tokenizer.

    Only results under the default protocol, at the data's own size, against the images themselves. A number has to have
    one N in all pairs, since distances fall with it: the N that most pairs have; others go without it.
    """
    alike = [one for one in results if one.dataset == dataset and _plain(one)]
    tokenizers = [one for one in alike if kind_of_task(one.task) in ("reconstruct", "perturb")]
    generators = {
        one.provenance["adapter"]["tokenizer"]: one.adapter
        for one in alike
        if one.task == task and one.adapter.partition(".")[0] == family and one.provenance["adapter"].get("tokenizer")
    }
    below = {one.adapter for one in tokenizers}
    chosen = {tokenizer: generator for tokenizer, generator in generators.items() if tokenizer in below}
    numbers = _at_one_count([one for one in tokenizers if one.adapter in chosen])
    generated = _at_one_count([one for one in alike if one.task == task and one.adapter in chosen.values()])
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


def _plain(result: Result) -> bool:
    told = result.provenance
    own = told["data"]["own_size"] in (None, told["data"]["width"])
    return own and told["protocol"]["name"] == "tokbench" and "reference" not in told and told["precision"] == "float32"


def _at_one_count(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """By adapter: each number at the N that most of them have it at, the larger of two."""
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
    """Every number of tokenizers with every one of generators, over all pairs and within each size of token (in whole
    bits) that at least three have."""
    groups: list[tuple[str, list[TokenizerGeneratorPair]]] = [("all", list(found))]
    by_size = itertools.groupby(
        sorted((one for one in found if one.bits), key=lambda one: one.bits or 0), key=lambda one: round(one.bits or 0)
    )
    groups += [(f"{bits} bits a token", members) for bits, own in by_size if len(members := list(own)) >= 3]
    made = []
    for within, members in groups:
        for number, generated in itertools.product(OF_TOKENIZERS, OF_GENERATORS):
            both = [
                (one.numbers[number], one.generated[generated])
                for one in members
                if number in one.numbers and generated in one.generated
            ]
            if len(both) >= 3 and len({first for first, _ in both}) > 1 and len({second for _, second in both}) > 1:
                made.append(_correlation(np.array(both), number, generated, within, seed))
    return made


def _correlation(both: np.ndarray, number: str, generated: str, within: str, seed: int) -> Correlation:
    rho, tau = _of(both)
    if len(both) < LEAST:
        return Correlation(number, generated, within, len(both), rho, tau, None, None)
    draw = np.random.default_rng(seed)
    drawn = np.array([_of(both[draw.integers(0, len(both), len(both))]) for _ in range(DRAWS)])
    low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=0)
    return Correlation(number, generated, within, len(both), rho, tau, (low[0], high[0]), (low[1], high[1]))


def _of(both: np.ndarray) -> tuple[float, float]:
    """NaN where a draw holds one tokenizer only."""
    if len(np.unique(both[:, 0])) < 2 or len(np.unique(both[:, 1])) < 2:
        return float("nan"), float("nan")
    return float(spearmanr(both[:, 0], both[:, 1]).statistic), float(kendalltau(both[:, 0], both[:, 1]).statistic)


def markdown(found: Sequence[Correlation]) -> str:
    """A table; a number that is better when it is lower should rise with gFID, so its sign should be +."""
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
