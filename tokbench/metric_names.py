"""The names of numbers, of the cells that perturbed tokens are measured in, and what some names begin with.

"pFID (tokbench grid)". The grid is that of Qiu et al., Image Tokenizer Needs Post-Training (arXiv:2509.12474); their
script is unpublished, so it stays open what else differs, and published pFIDs are not comparable with these numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from tokbench.errors import UsageError
from tokbench.stats.naming import INFINITY

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

PERTURBABLE = {
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
class PerturbationNaming:
    """A kind of tokens whose numbers have names of their own: `letter` before what stays of the name, `suffix` after
    it, `title` in tables; `says` what was done."""

    letter: str = "p"
    suffix: str = ""
    title: str = ""
    says: str = ""

    def name(self, number: str) -> str | None:
        """What a number of one cell is called; None where it says nothing of perturbed tokens."""
        form = PERTURBABLE.get(number)
        return f"{self.letter}{form}{self.suffix}" if form else None


EXTENSIONS = {
    "plain": PerturbationNaming(),
    "grouped": PerturbationNaming(
        suffix="_grouped", title=" grouped", says="each of a token's codes by itself, in its own codebook"
    ),
    "fsq": PerturbationNaming(suffix="_fsq", title=" FSQ", says="the codes are the grid of all levels"),
    "binary": PerturbationNaming(
        suffix="_binary",
        title=" binary",
        says="near codes differ in the least certain bits; all bits of a token are one code",
    ),
    "noise": PerturbationNaming(
        letter="n", says="latents plus alpha times Gaussian noise of their own standard deviation in each image"
    ),
}
"""The authors' operator is defined for one codebook (`plain`); the others are tokbench's own."""

_PLAIN = {name: number for one in EXTENSIONS.values() for number in PERTURBABLE if (name := one.name(number))}


def base_metric(number: str) -> str | None:
    """`rfid_768` for `pfid_768_grouped`, `pfid_768.a0.9-d10` and `pfid_768_infinity`; None for other numbers."""
    return _PLAIN.get(number.partition(".")[0].removesuffix(INFINITY))


def is_single_cell(number: str) -> bool:
    """Whether it is a number of one cell, such as `pfid_768.a0.9-d10`."""
    return "." in number and base_metric(number) is not None


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
    kept, others = [name for name in names if name in PERTURBABLE], [name for name in names if name not in PERTURBABLE]
    if (others and strict) or not kept:
        raise UsageError(f"--task perturb has no {', '.join(others) or 'metrics'}; it has {', '.join(PERTURBABLE)}")
    return kept


INCEPTION = "inception-2015-12-05"
"""The name of the network of FID."""

FOUND = "batch size for "
"""How those facts of a number begin that its measurement found out and nobody set."""

PRUNING_PREFIX = "prune-"
"""How the names of the result files of token reduction begin; a file of another task never does."""
