"""The grid of cells that perturbed tokens are measured in, and the names of numbers of perturbed tokens.

"pFID (tokbench grid)". The grid is that of Qiu et al., Image Tokenizer Needs Post-Training (arXiv:2509.12474); their
script is unpublished, so it stays open what else differs, and published pFIDs are not comparable with these numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Anchor = Literal["latent", "code"]
ANCHORS: tuple[Anchor, ...] = ("latent", "code")
"""What a token's near misses are near to: the encoder's latent, as in the authors' code, or the code that was chosen,
as in their papers."""

ALPHAS = (0.9, 0.8, 0.7, 0.6, 0.5)
DELTAS = {1024: (10, 15, 20), 4096: (50, 70, 90), 8192: (100, 140, 180), 16384: (200, 280, 360)}
"""By size of the codebook."""

CAVEAT = "Perturbed tokens: pFID (tokbench grid), the mean over its cells; published pFIDs are not comparable."


@dataclass(frozen=True)
class PerturbationNaming:
    """A kind of tokens whose numbers have names of their own: `letter` before what stays of the name, `suffix` after
    it, `title` in tables; `says` what was done."""

    letter: str = "p"
    suffix: str = ""
    title: str = ""
    says: str = ""

    def apply(self, form: str) -> str:
        """The name of a number: `pfid_768_grouped` for the form `fid_768`."""
        return f"{self.letter}{form}{self.suffix}"


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
