"""What of a tokenizer goes with the quality of generators over it: rank correlations over tokenizers trained alike."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import kendalltau, spearmanr

from tokbench.leaderboard import column_of, table
from tokbench.result import Result

OF_TOKENIZERS = (
    "rfid", "rfid_768", "fd_efficientnet", "pfid", "pfid_768", "pfid_efficientnet", "psnr", "lpips", "codebook_entropy",
    "codebook_usage", "bits_per_image",
)  # fmt: skip
"""Numbers of a tokenizer that are held against those of generators over it."""

OF_GENERATORS = ("gfid", "gfid_768", "fd_efficientnet")

LEAST = 5
"""Tokenizers below which no interval is told: almost any order of four can come by chance."""

DRAWS = 2000

Within = Literal["all", "one codebook size"]


@dataclass(frozen=True)
class Pair:
    """One tokenizer, and a generator over it: their numbers, and the entries of the tokenizer's codebook (None: it has
    none)."""

    tokenizer: str
    generator: str
    codebook: int | None
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


def pairs(results: Iterable[Result], family: str, dataset: str, task: str = "generate") -> list[Pair]:
    """Tokenizers with reconstruction results on a dataset, and the generators of one family over them.

    A number that stands in results of several N is taken of the largest.
    """
    found: dict[str, dict[str, float]] = {}
    codebooks: dict[str, int | None] = {}
    ordered = sorted((one for one in results if one.dataset == dataset), key=lambda one: one.num_images)
    for one in ordered:
        if one.task in ("reconstruct", "perturb"):
            values = {name: entry["value"] for name, entry in one.metrics.items() if entry["value"] is not None}
            found[one.adapter] = found.get(one.adapter, {}) | values
            sizes = one.provenance["adapter"].get("codebook") or {}
            codebooks[one.adapter] = max(sizes.values()) if sizes else None
    made = []
    for one in ordered:
        below = one.provenance["adapter"].get("tokenizer")
        if one.task == task and one.adapter.partition(".")[0] == family and below in found:
            values = {name: entry["value"] for name, entry in one.metrics.items() if entry["value"] is not None}
            made.append(Pair(below, one.adapter, codebooks[below], found[below], values))
    return made


def correlations(found: Sequence[Pair], seed: int = 0) -> list[Correlation]:
    """Every number of tokenizers with every one of generators, over all pairs and within each size of codebook that at
    least three have."""
    groups: list[tuple[str, list[Pair]]] = [("all", list(found))]
    by_size = itertools.groupby(
        sorted((one for one in found if one.codebook), key=lambda one: one.codebook or 0), key=lambda one: one.codebook
    )
    groups += [(f"K = {size:,}", members) for size, own in by_size if len(members := list(own)) >= 3]
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
