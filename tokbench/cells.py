"""Cells: the grid on which tokens are perturbed, and the one result that its cells make together.

"pFID (tokbench grid)". The grid is that of Qiu et al., Image Tokenizer Needs Post-Training (arXiv:2509.12474); their
script is unpublished, so it stays open what else differs, and published pFIDs are not comparable with these numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import numpy as np

from tokbench.bootstrap import Interval, bootstrap, entry
from tokbench.errors import UsageError
from tokbench.halves import INFINITY, Replicates
from tokbench.result import Kept, Result
from tokbench.result_warning import few_images, joined

Anchor = Literal["latent", "code"]
ANCHORS: tuple[Anchor, ...] = ("latent", "code")
"""What a token's near misses are near to: the encoder's latent, as in the authors' code, or the code that was chosen,
as in their papers."""

ALPHAS = (0.9, 0.8, 0.7, 0.6, 0.5)
DELTAS = {1024: (10, 15, 20), 4096: (50, 70, 90), 8192: (100, 140, 180), 16384: (200, 280, 360)}
"""By size of the codebook."""

CAVEAT = "Perturbed tokens: pFID (tokbench grid), the mean over its cells; published pFIDs are not comparable."

DEFAULT = ("rfid", "rfid_768", "fd_efficientnet", "psnr")
"""Metrics that are computed where none are asked for."""

FORMS = {
    "rfid": "fid",
    "rfid_768": "fid_768",
    "rfid_192": "fid_192",
    "rfid_64": "fid_64",
    "sfid": "sfid",
    "fd_efficientnet": "fid_efficientnet",
    "kid": "kid",
    "kid_768": "kid_768",
    "psnr": "psnr",
    "ssim": "ssim",
    "ms_ssim": "ms_ssim",
    "lpips": "lpips",
    "lpips_vgg": "lpips_vgg",
}
"""What stays of a number's name behind the letter that says that tokens were perturbed. Each is its metric's, too."""


@dataclass(frozen=True)
class Extension:
    """A kind of tokens whose numbers have names of their own: `letter` before what stays of the name, `suffix` after
    it, `title` in tables; `says` what was done."""

    letter: str = "p"
    suffix: str = ""
    title: str = ""
    says: str = ""

    def name(self, number: str) -> str | None:
        """What a number of one cell is called; None where it says nothing of perturbed tokens."""
        form = FORMS.get(number)
        return f"{self.letter}{form}{self.suffix}" if form else None


EXTENSIONS = {
    "plain": Extension(),
    "grouped": Extension(
        suffix="_grouped", title=" grouped", says="each of a token's codes by itself, in its own codebook"
    ),
    "fsq": Extension(suffix="_fsq", title=" FSQ", says="the codes are the grid of all levels"),
    "binary": Extension(
        suffix="_binary",
        title=" binary",
        says="near codes differ in the least certain bits; all bits of a token are one code",
    ),
    "noise": Extension(
        letter="n", says="latents plus alpha times Gaussian noise of their own standard deviation in each image"
    ),
}
"""The authors' operator is defined for one codebook (`plain`); the others are tokbench's own."""

_PLAIN = {name: number for one in EXTENSIONS.values() for number in FORMS if (name := one.name(number))}


def plain(number: str) -> str | None:
    """`rfid_768` for `pfid_768_grouped`, `pfid_768.a0.9-d10` and `pfid_768_infinity`; None for other numbers."""
    return _PLAIN.get(number.partition(".")[0].removesuffix(INFINITY))


def of_one(number: str) -> bool:
    """Whether it is a number of one cell, such as `pfid_768.a0.9-d10`."""
    return "." in number and plain(number) is not None


def deltas(codebook_size: int) -> list[int]:
    """How many near codes there are to choose from, for a codebook of that size: rising, each once.

    Those of the nearest size in DELTAS, by ratio (of two as near, the smaller), in proportion, rounded; at least 2 and
    at most all.
    """
    near = min(DELTAS, key=lambda size: abs(math.log2(codebook_size) - math.log2(size)))
    scaled = {round(Fraction(delta * codebook_size, near)) for delta in DELTAS[near]}
    return sorted({min(max(delta, 2), codebook_size) for delta in scaled})


def cell_name(alpha: float, delta: int | None) -> str:
    """`a0.9-d10`; `a0.9` where there is nothing to choose from."""
    return f"a{alpha:g}" + ("" if delta is None else f"-d{delta}")


def measurable(names: Sequence[str], strict: bool) -> list[str]:
    """The metrics that perturbed tokens have. Raises UsageError where others are asked for and `strict`, or where none
    is left."""
    kept, others = [name for name in names if name in FORMS], [name for name in names if name not in FORMS]
    if (others and strict) or not kept:
        raise UsageError(f"--task perturb has no {', '.join(others) or 'metrics'}; it has {', '.join(FORMS)}")
    return kept


@dataclass(frozen=True)
class Journals:
    """Those of all cells."""

    parts: Sequence[Kept]

    def discard(self) -> None:
        """Delete them, for the result is written."""
        for part in self.parts:
            part.discard()


def combined(made: Sequence[tuple[str, Result]], extension: Extension, anchor: str) -> Result:
    """One result of those of all cells, each with the cell's name.

    A number is the mean over cells. Its interval comes from what all cells have of the same images: of their values on
    halves, or of each image, the mean. Every cell's own value and interval stand beside it, `pfid.a0.9-d10`.
    """
    results = [result for _, result in made]
    first = replace(results[0], journal=Journals([result.journal for result in results if result.journal]))
    if failed := [f"{result.error} (cell {cell})" for cell, result in made if result.error]:
        return replace(first, error=failed[0])
    skipped = dict.fromkeys(first.computed - set(FORMS), "it says nothing of perturbed tokens")
    notes = dict(skipped)
    for result in results:
        skipped |= result.skipped
        notes |= result.notes
    told = _provenance(extension, anchor)
    whole = replace(
        first,
        metrics={},
        skipped=skipped,
        provenance=first.provenance | {"metrics": {}},
        per_image={},
        replicates={},
        readings={},
        notes=notes,
        computed=first.computed & (set(FORMS) - set(skipped)),
    )
    for number in first.metrics:
        name = extension.name(number)
        if name is None or not all(number in result.metrics for result in results):
            continue
        ways = [result.provenance["metrics"].get(number, {}) for result in results]
        common = {key: way for key, way in ways[0].items() if all(other.get(key) == way for other in ways)}
        for key, found in _means(name, number, results).items():
            whole.metrics[key], whole.provenance["metrics"][key] = found, common | told
        if all(number in result.replicates for result in results):
            whole.replicates[name] = _mean_replicates(number, results)
        elif number in first.per_image:
            whole.per_image |= {key: first.per_image[key] for key in ("index", "name")}
            whole.per_image[name] = _mean_per_image(number, results)
        for (cell, result), way in zip(made, ways, strict=True):
            key = f"{name}.{cell}"
            whole.metrics[key], whole.provenance["metrics"][key] = result.metrics[number], way | told
    few = few_images(whole.num_images, whole.metrics)
    return replace(whole, warnings=joined(first.warnings, (), few))


def _provenance(extension: Extension, anchor: str) -> dict[str, str]:
    grid = " ".join(f"{alpha:g}" for alpha in ALPHAS)
    told = {
        "perturbed": f"tokbench grid, mean over alpha {grid}"
        + (", up to three deltas by codebook size as in arXiv:2509.12474" if extension.letter == "p" else "")
        + "; published pFIDs are not comparable"
    }
    if extension.letter == "p":
        told["anchor"] = anchor
    return told | ({"extension": extension.says} if extension.says else {})


def _means(name: str, number: str, results: Sequence[Result]) -> dict[str, dict[str, object]]:
    """The mean over cells with its interval and, where it can be had, its extrapolation, as a result holds them."""
    values = [result.metrics[number]["value"] for result in results]
    value = math.nan if None in values else math.fsum(values) / len(values)
    count, seed = results[0].num_images, results[0].provenance["seed"]
    if all(number in result.replicates for result in results):
        made = _mean_replicates(number, results)
        return {key: entry(mean, interval) for key, mean, interval in made.entries(name, value, count)}
    if number in results[0].per_image and not math.isnan(value):
        found = bootstrap(_mean_per_image(number, results), seed)
        # An image that is exact in some cells only counts in their values, and not in its own mean.
        return {name: entry(value, Interval(min(found.low, value), max(found.high, value), found.n))}
    return {name: entry(value) | {"n": count}}


def _mean_replicates(number: str, results: Sequence[Result]) -> Replicates:
    """Of the same halves in all cells, so of the mean of the numbers. All numbers of perturbed tokens that are no means
    over images are distances, which have halves."""
    return Replicates.from_array(np.mean([result.replicates[number].as_array() for result in results], axis=0))


def _mean_per_image(number: str, results: Sequence[Result]) -> np.ndarray:
    """Of each image, NaN where a cell has no value."""
    return np.mean([result.per_image[number] for result in results], axis=0)
