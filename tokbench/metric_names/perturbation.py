"""The grid of cells in which perturbed tokens are measured, and the names of numbers of perturbed tokens.

The numbers are called "pFID (tokbench grid)". The grid is that of Qiu et al., Image Tokenizer Needs Post-Training
(arXiv:2509.12474). Their script is unpublished, so other differences are unknown, and published pFIDs are not
comparable with these numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Anchor = Literal["latent", "code"]
ANCHORS: tuple[Anchor, ...] = ("latent", "code")
"""The point from which the distance to neighbouring codes is measured: the encoder's latent, as in the authors' code,
or the selected code, as in their papers."""

ALPHAS = (0.9, 0.8, 0.7, 0.6, 0.5)
DELTAS = {1024: (10, 15, 20), 4096: (50, 70, 90), 8192: (100, 140, 180), 16384: (200, 280, 360)}
"""Numbers of nearest codes, by codebook size."""

CAVEAT = "Perturbed tokens: pFID (tokbench grid), the mean over its cells; published pFIDs are not comparable."


@dataclass(frozen=True)
class PerturbationNaming:
    """How the numbers of one kind of perturbation are named.

    letter, suffix: the text before and after the form of the number's name. title: the addition to the title in
    tables. description: the description of the perturbation that results record.
    """

    letter: str = "p"
    suffix: str = ""
    title: str = ""
    description: str = ""

    def apply(self, form: str) -> str:
        """Return the name of a number, such as `pfid_768_grouped` for the form `fid_768`."""
        return f"{self.letter}{form}{self.suffix}"


EXTENSIONS = {
    "plain": PerturbationNaming(),
    "grouped": PerturbationNaming(
        suffix="_grouped", title=" grouped", description="each of a token's codes by itself, in its own codebook"
    ),
    "fsq": PerturbationNaming(suffix="_fsq", title=" FSQ", description="the codes are the grid of all levels"),
    "binary": PerturbationNaming(
        suffix="_binary",
        title=" binary",
        description="near codes differ in the least certain bits; all bits of a token are one code",
    ),
    "noise": PerturbationNaming(
        letter="n", description="latents plus alpha times Gaussian noise of their own standard deviation in each image"
    ),
}
"""The authors define their operator for one codebook (`plain`). The other kinds are defined by tokbench."""


def deltas(codebook_size: int) -> list[int]:
    """Return the numbers of nearest codes to sample from for a codebook of this size, increasing, without duplicates.

    They are those of the nearest size in DELTAS by ratio (the smaller one in a tie), scaled in proportion, rounded, and
    limited to the range from 2 to the codebook size.
    """
    near = min(DELTAS, key=lambda size: abs(math.log2(codebook_size) - math.log2(size)))
    scaled = {round(Fraction(delta * codebook_size, near)) for delta in DELTAS[near]}
    return sorted({min(max(delta, 2), codebook_size) for delta in scaled})


def cell_name(alpha: float, delta: int | None) -> str:
    """Return the name of a cell: `a0.9-d10`, or `a0.9` if there is no number of nearest codes."""
    return f"a{alpha:g}" + ("" if delta is None else f"-d{delta}")
