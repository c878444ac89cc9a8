"""Rank correlations between metrics of tokenizers and the quality of generators trained on their tokens."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tokbench.metric_names import kind_of_task
from tokbench.results.columns import column_of
from tokbench.results.markdown import table
from tokbench.results.result import Result

OF_TOKENIZERS = (
    "rfid", "rfid_768", "fd_efficientnet", "pfid", "pfid_768", "pfid_efficientnet", "ifid", "ifid_768",
    "ifd_efficientnet", "ifid_top10", "ifid_top10_768", "ifd_top10_efficientnet", "psnr", "lpips", "codebook_entropy",
    "codebook_usage", "gpt_bits_per_token", "gpt_bits_share", "bits_per_image", "latent_kurtosis",
    "effective_rank_share", "spectral_match", "lowpass_rfid_768", "lowpass_fd_efficientnet", "lds",
    "equivariance_rotate_own", "equivariance_flip_own", "equivariance_shift_own", "equivariance_scale_own",
    "entropy_cliff_measured", "probe_linear", "probe_first_10",
)  # fmt: skip
"""Numbers of a tokenizer that are correlated with those of its generators."""

_SEED = re.compile(r"_seed\d+$")

OF_GENERATORS = ("gfid", "gfid_768", "fd_efficientnet")

MIN_TOKENIZERS = 5
"""Minimum number of tokenizers for an interval: with four, almost any order can occur by chance."""

RESAMPLES = 2000


@dataclass(frozen=True)
class TokenizerGeneratorPair:
    """One tokenizer and a generator trained on its tokens, with the numbers of both.

    bits: bits per token, summed over the tokenizer's codebooks; None if it has no codebook. generated: the mean over
    the seeds of the generator's training. seeds: the numbers of the generator of each seed, if there are several.
    """

    tokenizer: str
    generator: str
    bits: float | None
    numbers: dict[str, float]
    generated: dict[str, float]
    seeds: tuple[dict[str, float], ...] = ()


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho and Kendall's tau-b between a tokenizer's number and a generator's, over `count` tokenizers.

    within: the group of tokenizers. rho_interval, tau_interval: 95 % bootstrap intervals over tokenizers, and over the
    seeds of each one's generator; None for fewer than `MIN_TOKENIZERS`.
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

    Adapters whose names differ only in an ending such as `_seed1` are one generator trained with other seeds.

    Only results under the default protocol, in float32, at the dataset's size and without a statistics file are used.
    Each number is taken at one N, because distances decrease with N: the N that most results have. Tokenizers without a
    result at that N do not get the number.
    """
    comparable = [one for one in results if one.dataset == dataset and _has_default_settings(one)]
    tokenizers = [one for one in comparable if kind_of_task(one.task) in ("reconstruct", "perturb")]
    generators = {
        one.provenance["adapter"]["tokenizer"]: _SEED.sub("", one.adapter)
        for one in comparable
        if one.task == task and one.adapter.partition(".")[0] == family and one.provenance["adapter"].get("tokenizer")
    }
    measured = {one.adapter for one in tokenizers}
    chosen = {tokenizer: generator for tokenizer, generator in generators.items() if tokenizer in measured}
    numbers = _at_one_count([one for one in tokenizers if one.adapter in chosen])
    drawn = [
        one
        for one in comparable
        if one.task == task and chosen.get(one.provenance["adapter"].get("tokenizer")) == _SEED.sub("", one.adapter)
    ]
    tokenizer_of = {one.adapter: one.provenance["adapter"]["tokenizer"] for one in drawn}
    generated = _at_one_count(drawn)
    discrete = {
        one.adapter: one.provenance["adapter"].get("bits_per_token")
        for one in tokenizers
        if one.provenance["adapter"].get("codebook")
    }
    found = []
    for tokenizer, generator in sorted(chosen.items()):
        seeds = tuple(values for name, values in sorted(generated.items()) if tokenizer_of[name] == tokenizer)
        found.append(
            TokenizerGeneratorPair(
                tokenizer,
                generator,
                discrete.get(tokenizer),
                numbers.get(tokenizer, {}),
                _mean_of(seeds),
                seeds if len(seeds) > 1 else (),
            )
        )
    return found


def _mean_of(seeds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each number over the seeds that have it."""
    names = dict.fromkeys(name for values in seeds for name in values)
    return {name: float(np.mean([values[name] for values in seeds if name in values])) for name in names}


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
            both = [one for one in members if number in one.numbers and generated in one.generated]
            values = np.array([(one.numbers[number], one.generated[generated]) for one in both], np.float64).reshape(
                -1, 2
            )
            if len(both) >= 3 and all(len(np.unique(column)) > 1 for column in values.T):
                seeds = [np.array([own[generated] for own in one.seeds if generated in own]) for one in both]
                computed.append(_correlation(values, seeds, (number, generated, within), seed))
    return computed


def _correlation(
    values: np.ndarray, seeds: Sequence[np.ndarray], names: tuple[str, str, str], seed: int
) -> Correlation:
    """Return the correlation of the columns of `values` (n, 2). seeds: the values of the second column by the seeds of
    each generator, (k,), empty for one seed. names: the two numbers and the group."""
    number, generated, within = names
    rho, tau = (float(one[0]) for one in _rank_correlations(values[None]))
    if len(values) < MIN_TOKENIZERS:
        return Correlation(number, generated, within, len(values), rho, tau, None, None)
    rng, resampled = np.random.default_rng(seed), np.empty((RESAMPLES, *values.shape))
    for drawn in resampled:
        chosen = rng.integers(0, len(values), len(values))
        of_seeds = values.copy()  # a tokenizer that is drawn twice has the same seeds twice
        for row, own in enumerate(seeds):
            if len(own) > 1:
                of_seeds[row, 1] = rng.choice(own, len(own)).mean()
        drawn[:] = of_seeds[chosen]
    rhos, taus = (tuple(np.nanpercentile(one, [2.5, 97.5]).tolist()) for one in _rank_correlations(resampled))
    return Correlation(number, generated, within, len(values), rho, tau, rhos, taus)


def _rank_correlations(both: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Spearman's rho and Kendall's tau-b, (B,) each, of the two columns of B tables (B, n, 2); NaN where a
    column is constant.

    Both follow from the signs of all differences: the sum of a value's signs is twice its mean rank plus a constant.
    """
    signs = [np.sign(column[:, :, None] - column[:, None, :]) for column in (both[..., 0], both[..., 1])]
    ranks = [one.sum(2) for one in signs]
    found = []
    for (first, second), axes in ((ranks, 1), (signs, (1, 2))):
        scale = np.sqrt(np.square(first).sum(axes) * np.square(second).sum(axes))
        found.append(np.where(scale > 0, (first * second).sum(axes) / np.where(scale > 0, scale, 1), np.nan))
    return found[0], found[1]


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


def conclusion(found: Sequence[Correlation]) -> str:
    """Return, for each number of the generators, which numbers of the tokenizers rank all tokenizers as it does.

    A number does if the 95 % interval of Spearman's rho excludes 0 on the side that its direction predicts; for a
    number without a direction, rho is stated. Numbers whose interval contains 0 are named, too: nothing is shown about
    them. The text is a Markdown list, empty if there is no interval.
    """
    sentences = []
    for generated in OF_GENERATORS:
        tested = [one for one in found if one.generated == generated and one.within == "all" and one.rho_interval]
        if not tested:
            continue
        sides: dict[int, list[str]] = {1: [], -1: [], 0: []}
        for one in tested:
            assert one.rho_interval is not None
            column = column_of(one.number)[1]
            clear = np.sign(one.rho_interval[0]) == np.sign(one.rho_interval[1]) != 0
            expected = column.more is None or (one.rho < 0) == column.more
            side = (1 if expected else -1) if clear else 0
            sides[side].append(f"{column.title} (ρ {one.rho:+.2f})" if side and column.more is None else column.title)
        title = column_of(generated)[1].title
        text = f"{title} is ranked alike by {', '.join(sides[1])}." if sides[1] else (
            f"No number is shown to rank these tokenizers as {title} does."
        )  # fmt: skip
        text += f" The opposite order is shown for {', '.join(sides[-1])}." if sides[-1] else ""
        text += f" Nothing is shown (the interval contains 0) for {', '.join(sides[0])}." if sides[0] else ""
        sentences.append(text)
    count = sum(one.rho_interval is not None and one.within == "all" for one in found)
    if count > 1:
        sentences.append(f"By chance alone, {count / 20:.1f} of {count} intervals would exclude 0.")
    return "".join(f"- {sentence}\n" for sentence in sentences)
