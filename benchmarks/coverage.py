"""Coverage and false-alarm rates of every kind of 95 % interval, by simulation.

    python benchmarks/coverage.py                      # the table of docs/statistics.md
    python benchmarks/coverage.py --draws 50 --only fid codebook

Each draw is a dataset of N images from a known population, measured with tokbench's own metrics. `coverage` is the
share of draws whose interval contains the true value: the population mean for means over images, otherwise the expected
value at this N (the mean over all draws). `width` is the mean interval width divided by that of the ideal interval,
2 x 1.96 standard deviations of the number over draws. `false alarms` is the share of draws in which `tokbench compare`
reports a difference between two codecs that differ only by chance and are measured on the same images.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tokbench.analysis.compare import difference
from tokbench.evaluation.metric_set import MetricValues
from tokbench.extractors.network import FeatureExtractor
from tokbench.metrics.base import Metric, PerImageMetric
from tokbench.metrics.batch import Batch
from tokbench.metrics.codebook import Codebook
from tokbench.metrics.frechet import Frechet
from tokbench.metrics.inception_score import InceptionScore
from tokbench.metrics.kid import KID
from tokbench.metrics.precision_recall import PrecisionRecall
from tokbench.metrics.psnr import PSNR
from tokbench.protocol.protocol import load_protocol
from tokbench.results.result import Result
from tokbench.stats.binned import Bin, binned
from tokbench.stats.bootstrap import DERIVED, bootstrap_pairs, mean, share_interval
from tokbench.stats.split_half import SplitHalves
from tokbench.tokenizers.tokens import Tokens

ROOT = Path(__file__).resolve().parent.parent
DRAWS = 400
ALARMS = ("better", "worse", "no direction")
"""Verdicts that report a difference."""


@dataclass(frozen=True)
class Drawn:
    """One number of one draw: its value and interval.

    alarm: whether two equal codecs were reported as different; None if the number is not compared.
    """

    value: float
    low: float
    high: float
    alarm: bool | None = None


Draw = Callable[[np.random.Generator, int], dict[str, Drawn]]
"""Draws a dataset of N images and returns its numbers by name."""


@dataclass(frozen=True)
class Kind:
    """Numbers with one kind of interval.

    how: description of the interval. counts: the simulated N. draw: draws a dataset. truth: true value of each number
    if known; otherwise the mean over all draws is used.
    """

    how: str
    counts: Sequence[int]
    draw: Draw
    truth: dict[str, float] | None = None


class UnusedExtractor(FeatureExtractor):
    """A feature extractor that is never called."""

    name, sha256 = "blind", "0" * 64

    def forward(self, images: torch.Tensor, chunk: int) -> dict[str, torch.Tensor]:
        raise AssertionError


def pair(first: Metric, second: Metric, rng: np.random.Generator, count: int) -> dict[str, Drawn]:
    """Return the numbers of the first codec, and whether the two codecs are reported as different."""
    key = str(rng.integers(1 << 62))
    one, other = (_result(metric, SplitHalves(key, count), count) for metric in (first, second))
    found = {}
    for number, entry in one.metrics.items():
        if entry["low"] is not None and number in other.metrics:
            alarm = difference(number, one, other).verdict in ALARMS
            found[number] = Drawn(entry["value"], entry["low"], entry["high"], alarm)
    return found


def _result(metric: Metric, halves: SplitHalves, count: int) -> Result:
    numbers = MetricValues()
    numbers.add_metric(metric, 0, halves)
    axis: dict[str, np.ndarray] = {"index": np.arange(count), "name": np.arange(count).astype(str)}
    per_image = axis | {name: values for name, (_, values) in numbers.per_image.items()}
    provenance: dict[str, Any] = {"metrics": {}}
    return Result(
        "codec", "drawn", "reconstruct", count, numbers.values, {}, [], provenance, per_image=per_image,
        replicates=numbers.replicates,
    )  # fmt: skip


class GivenValues(PerImageMetric):
    """A mean over images of given values."""

    def __init__(self, name: str, values: np.ndarray) -> None:
        super().__init__()
        self.rows.add(np.arange(len(values)), {name: values})

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        raise AssertionError


def means() -> Iterator[tuple[str, Kind]]:
    """Yield the simulations of means over images.

    The population consists of the values of 2,000 images stored beside two committed results. The tokenizer that an
    image's value comes from is sampled, so that both codecs have the same true mean.
    """
    stored = [
        np.load(ROOT / "results" / name / "tiny-imagenet.n2000-reconstruct.npz") for name in ("vqgan.f8", "fsq.f8")
    ]
    for number in ("psnr", "lpips"):
        both = np.stack([arrays[number] for arrays in stored])

        def draw(rng: np.random.Generator, count: int, number: str = number, both: Any = both) -> dict[str, Drawn]:
            chosen, turned = rng.integers(0, both.shape[1], count), rng.integers(0, 2, count)
            values = [both[turned, chosen], both[1 - turned, chosen]]
            return pair(GivenValues(number, values[0]), GivenValues(number, values[1]), rng, count)

        kind = "t below 50 images, percentile bootstrap from 50 on"
        yield number, Kind(kind, (5, 20, 49, 50, 200, 1000), draw, {number: float(both.mean())})


IMAGE_STD, CODEC_STD = 0.9, 0.45
"""Standard deviations of the logarithm of squared errors: between images, and between codecs on the same image."""


def true_psnr(share: float) -> float:
    """Return the PSNR of the mean squared error, where only this share of images has an error."""
    return DERIVED["psnr"].of(100 * share * float(np.exp((IMAGE_STD**2 + CODEC_STD**2) / 2)))


def pooled(share: float) -> Draw:
    """Simulate lognormal squared errors, as for photos, with a share of images that both codecs reproduce exactly."""

    def draw(rng: np.random.Generator, count: int) -> dict[str, Drawn]:
        errors = 100 * rng.lognormal(0, IMAGE_STD, count) * (rng.random(count) < share)
        metrics = []
        for _ in range(2):
            metric = PSNR(load_protocol("vtbench"))
            metric.rows.add(np.arange(count), {"mse": errors * rng.lognormal(0, CODEC_STD, count)})
            metrics.append(metric)
        return {"psnr": found["psnr"]} if (found := pair(*metrics, rng, count)) else {}

    return draw


def inception_score(rng: np.random.Generator, count: int) -> dict[str, Drawn]:
    """Simulate logits of 50 classes; each image shows one class with varying confidence, the same for both codecs."""
    classes = rng.integers(0, 50, count)
    clear = rng.uniform(0, 8, count)[:, None] * np.eye(50)[classes]
    metrics = []
    for _ in range(2):
        metric = InceptionScore("inception_score", UnusedExtractor(), "x")
        logits = clear + rng.normal(size=(count, 50))
        metric.rows.add(np.arange(count), {"image": logits.astype(np.float32)})
        metrics.append(metric)
    return pair(*metrics, rng, count)


TOPICS, CODES, TOKENS = 12, 1024, 64

Law = Callable[[int], np.ndarray]
"""Returns the probabilities of a token's codes, (topics, codes), for N images."""


def topics(count: int) -> np.ndarray:
    """Return twelve topics, each with its own Zipf distribution over 1,024 codes."""
    laws = np.random.default_rng(7)
    frequency = 1 / np.arange(1, CODES + 1)
    return np.stack([laws.permutation(frequency) for _ in range(TOPICS)])


def uniform(used: int, unused: int = 0) -> Law:
    """Return a distribution with equally likely codes and unused codes."""
    return lambda count: np.concatenate([np.ones(used), np.zeros(unused)])[None]


def rare(number: int, times: float) -> Law:
    """Return 64 equally likely codes and some rare ones, each expected `times` times in the dataset."""

    def law(count: int) -> np.ndarray:
        chance = times / (count * TOKENS)
        return np.concatenate([np.full(64, (1 - number * chance) / 64), np.full(number, chance)])[None]

    return law


def codebook(law: Law) -> Draw:
    """Simulate 64 codes per image; each image has one topic, the same for both codecs."""

    def draw(rng: np.random.Generator, count: int) -> dict[str, Drawn]:
        laws = law(count)
        steps, size = (laws / laws.sum(1, keepdims=True)).cumsum(1), laws.shape[1]
        topic, metrics = rng.integers(0, len(laws), count), []
        for _ in range(2):
            chosen = rng.random((count, TOKENS))
            codes = np.stack([np.searchsorted(steps[one], row) for one, row in zip(topic, chosen, strict=True)])
            metric = Codebook()
            tokens = Tokens.from_indices(torch.from_numpy(codes.clip(0, size - 1)), size)
            metric.update(Batch(torch.arange(count), tokens=tokens))
            metrics.append(metric)
        return pair(*metrics, rng, count)

    return draw


DIMENSION = 16


def distances(make: Callable[..., Any], paired: bool, name: str) -> Draw:
    """Simulate Gaussian features of 16 dimensions with reconstructions (paired) or independent samples."""
    scale = np.exp(-np.arange(DIMENSION) / 4)

    def draw(rng: np.random.Generator, count: int) -> dict[str, Drawn]:
        reference, metrics = rng.normal(size=(count, DIMENSION)) * scale, []
        for _ in range(2):
            source = reference if paired else rng.normal(size=(count, DIMENSION)) * scale
            image = 0.9 * source + 0.3 * rng.normal(size=(count, DIMENSION)) * scale + 0.05 * scale
            metric = make(name, UnusedExtractor(), "x", paired=paired)
            metric.references.add(np.arange(count), {"x": reference.astype(np.float32)})
            metric.rows.add(np.arange(count), {"image": image.astype(np.float32)})
            metrics.append(metric)
        return pair(*metrics, rng, count)

    return draw


def words(share: float) -> Draw:
    """Simulate images of one to six words with varying accuracy per image; the mean accuracy is `share`."""

    def draw(rng: np.random.Generator, count: int) -> dict[str, Drawn]:
        image = np.repeat(np.arange(count), rng.integers(1, 7, count))
        chance = rng.beta(2 * share, 2 * (1 - share), count)
        read = (rng.random(len(image)) < chance[image]).astype(float)
        (one,) = binned(read, np.ones(len(read)), [Bin("all", 0, 2)], 0, image, share=True)
        return {f"t_acc at {share:g}": Drawn(one.mean, one.low, one.high)}

    return draw


def top1(share: float) -> Draw:
    """Simulate the predictions of two networks; each is correct with probability `share` per image."""

    def draw(rng: np.random.Generator, count: int) -> dict[str, Drawn]:
        first, second = (rng.random((2, count)) < share).astype(float)
        one, gap = share_interval(first), bootstrap_pairs(first, second, 0)
        return {f"top-1 at {share:g}": Drawn(mean(first), one.low, one.high, not gap.low <= 0 <= gap.high)}

    return draw


def kinds() -> dict[str, Kind]:
    """Return every kind of interval by a short name."""
    halves, jackknife = "complementary halves", "jackknife over images"
    made = dict(means())
    made["inception_score"] = Kind(
        "t over splits; below 200 images a jackknife over 25 groups", (100, 300, 1000), inception_score
    )
    made["codebook"] = Kind(jackknife, (20, 100, 500), codebook(topics))
    made["codebook_whole"] = Kind(f"{jackknife}; 256 codes, all alike", (20, 28), codebook(uniform(256)))
    made["codebook_half"] = Kind(f"{jackknife}; 256 codes alike, 256 unused", (20, 28), codebook(uniform(256, 256)))
    for number in (1, 5):
        how = f"{jackknife}; 64 codes and {number} expected once"
        made[f"codebook_rare_{number}"] = Kind(how, (20, 100), codebook(rare(number, 1.0)))
    for share in (1.0, 0.1):
        how = f"t and studentized bootstrap of the logarithm; {100 - 100 * share:.0f} % exact"
        counts = (10, 50, 200) if share == 1 else (200,)
        made[f"pooled_{share:g}"] = Kind(how, counts, pooled(share), {"psnr": true_psnr(share)})
    made["fid"] = Kind(halves, (100, 400), distances(Frechet, True, "rfid_768"))
    made["fid_unpaired"] = Kind(halves, (100, 400), distances(Frechet, False, "gfid_768"))
    made["kid"] = Kind(halves, (100,), distances(KID, True, "kid_768"))
    made["precision_recall"] = Kind(halves, (100,), distances(PrecisionRecall, False, "precision_recall_768"))
    for share in (0.005, 0.5, 0.995):
        how = "t below 50 images, else cluster bootstrap; no nearer than a share's bound"
        made[f"words_{share:g}"] = Kind(how, (20, 100), words(share), {f"t_acc at {share:g}": share})
        made[f"top1_{share:g}"] = Kind("Clopper-Pearson", (100,), top1(share), {f"top-1 at {share:g}": share})
    return made


@dataclass(frozen=True)
class Found:
    """Summary of all draws of one number at one N; `alarms` is NaN if the number is not compared."""

    number: str
    how: str
    count: int
    draws: int
    coverage: float
    width: float
    alarms: float


def simulate(name: str, kind: Kind, count: int, draws: int) -> list[Found]:
    """Simulate one kind of interval at one N."""
    rng = np.random.default_rng([zlib.crc32(name.encode()), count])
    found: dict[str, list[Drawn]] = {}
    for _ in range(draws):
        for number, one in kind.draw(rng, count).items():
            found.setdefault(number, []).append(one)
    made = []
    for number, own in found.items():
        values = np.array([one.value for one in own])
        truth = values.mean() if kind.truth is None else kind.truth[number]
        low, high = (np.array([getattr(one, end) for one in own]) for end in ("low", "high"))
        alarms = [one.alarm for one in own if one.alarm is not None]
        ideal = 2 * 1.96 * float(values.std(ddof=1)) or float("nan")
        made.append(
            Found(
                number,
                kind.how,
                count,
                len(own),
                float(((low <= truth) & (truth <= high)).mean()),
                float((high - low).mean() / ideal),
                float(np.mean(alarms)) if alarms else float("nan"),
            )
        )
    return made


def table(found: Sequence[Found]) -> str:
    """Return the Markdown table of docs/statistics.md."""
    head = "| number | interval | N | draws | coverage | width | false alarms |\n|:--|:--|--:|--:|--:|--:|--:|\n"

    def line(one: Found) -> str:
        alarms = "-" if np.isnan(one.alarms) else f"{100 * one.alarms:.0f} %"
        width = "-" if np.isnan(one.width) else f"{one.width:.2f}"
        cells = (f"`{one.number}`", one.how, f"{one.count:,}", f"{one.draws:,}", f"{100 * one.coverage:.0f} %")
        return f"| {' | '.join((*cells, width, alarms))} |\n"

    return head + "".join(map(line, found))


def main() -> None:
    every = kinds()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=DRAWS, help="datasets per kind and N")
    parser.add_argument("--only", nargs="*", choices=list(every), default=list(every), help="kinds to simulate")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for name in arguments.only:
        for count in every[name].counts:
            print(f"{name}, N = {count:,}", file=sys.stderr, flush=True)
            found += simulate(name, every[name], count, arguments.draws)
    print(table(found), end="")


if __name__ == "__main__":
    main()
