"""Head phantoms, ellipses of tissue as in Shepp and Logan's, under several contrast laws, with at most one lesion.

A contrast law maps each tissue to a grey level, as a modality does. The same lesion is bright under one law and dark
under another, so its kind does not follow from its brightness alone. They are not scans of patients, and no result on
them says anything about diagnosis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tokbench.data.synthetic.raster import Draws, add_shape, noise, to_pixels

SIDE = 64
"""Height and width of the images in pixels."""

Split = Literal["train", "test"]

TISSUES = ("air", "bone", "grey matter", "white matter", "fluid", "cyst", "tumour", "oedema", "bleed")
LAWS: dict[str, tuple[int, ...]] = {
    "t1": (6, 40, 105, 150, 45, 40, 85, 95, 190),
    "t2": (6, 30, 150, 105, 225, 230, 180, 200, 50),
    "ct": (4, 245, 120, 105, 70, 65, 95, 85, 185),
    "pet": (4, 20, 150, 100, 40, 30, 215, 120, 60),
}
"""The grey level of each tissue under each contrast law. Only the order of the levels resembles that modality's."""

LESIONS = ("none", "cyst", "tumour", "bleed")
"""The classes of a phantom, in the order of the labels."""

_JITTER, _BIAS, _NOISE = 6, 0.08, 4.0
"""Largest change of a tissue's level, largest relative change of the levels towards the edges, and standard deviation
of the noise in levels."""


@dataclass(frozen=True)
class Ellipse:
    """An ellipse of one tissue: a position in TISSUES, centre and half axes in shares of the side.

    turn: tangent of half the angle by which it is turned.
    """

    tissue: int
    x: float
    y: float
    half_width: float
    half_height: float
    turn: float = 0.0


@dataclass(frozen=True)
class Phantom:
    """One phantom.

    law: a key of LAWS. lesion: one of LESIONS. side: `left` or `right` in the image, empty without a lesion. size:
    `small` or `large`, or empty. levels: the grey level of each tissue. bias: relative change of the levels towards the
    right, the lower edge and the corners. seed: of the noise. ellipses: from back to front.
    """

    law: str
    lesion: str
    side: Literal["left", "right", ""]
    size: Literal["small", "large", ""]
    levels: tuple[float, ...]
    bias: tuple[float, float, float]
    seed: int
    ellipses: tuple[Ellipse, ...]


def make_phantom(split: Split, position: int) -> Phantom:
    """Return the phantom at a position of a split. The same arguments always give the same phantom."""
    draws = Draws(f"tokbench phantoms 1/{split}/{position}")
    law, lesion = draws.one_of(list(LAWS)), draws.one_of(LESIONS)
    levels = tuple(level + draws.between(-_JITTER, _JITTER) for level in LAWS[law])
    bias = draws.between(-_BIAS, _BIAS), draws.between(-_BIAS, _BIAS), draws.between(-_BIAS, _BIAS)
    seed = draws.below(1 << 32)
    ellipses = _head(draws)
    side: Literal["left", "right", ""] = ""
    size: Literal["small", "large", ""] = ""
    if lesion != "none":
        side, size = ("left", "right")[draws.below(2)], ("small", "large")[draws.below(2)]
        radius = draws.between(0.035, 0.05) if size == "small" else draws.between(0.07, 0.09)
        x = 0.5 + (1 if side == "right" else -1) * draws.between(0.14, 0.2)
        y = draws.between(0.32, 0.68)
        ellipses += _lesion(draws, lesion, x, y, radius)
    return Phantom(law, lesion, side, size, levels, bias, seed, tuple(ellipses))


def _head(draws: Draws) -> list[Ellipse]:
    half_width, half_height = draws.between(0.33, 0.38), draws.between(0.41, 0.45)
    x, y, turn = 0.5 + draws.between(-0.02, 0.02), 0.5 + draws.between(-0.02, 0.02), draws.between(-0.06, 0.06)
    skull, cortex = draws.between(0.03, 0.05), draws.between(0.05, 0.08)
    found = [
        Ellipse(TISSUES.index(tissue), x, y, half_width - inset, half_height - inset, turn)
        for tissue, inset in (("bone", 0.0), ("grey matter", skull), ("white matter", skull + cortex))
    ]
    width, height, apart = draws.between(0.02, 0.045), draws.between(0.07, 0.12), draws.between(0.05, 0.07)
    tilt = draws.between(0.05, 0.2)
    return found + [
        Ellipse(TISSUES.index("fluid"), x + sign * apart, y - 0.02, width, height, turn - sign * tilt)
        for sign in (-1, 1)
    ]


def _lesion(draws: Draws, lesion: str, x: float, y: float, radius: float) -> list[Ellipse]:
    """Return the ellipses of a lesion: a tumour lies in oedema, and a bleed is longer than wide."""
    turn, stretch = draws.between(-1.0, 1.0), draws.between(1.0, 1.25)
    if lesion == "bleed":
        stretch = draws.between(1.6, 2.0)
    wide, high = radius * stretch**0.5, radius / stretch**0.5
    found = [Ellipse(TISSUES.index(lesion), x, y, wide, high, turn)]
    if lesion == "tumour":
        found.insert(0, Ellipse(TISSUES.index("oedema"), x, y, 1.5 * wide, 1.5 * high, turn))
    return found


def caption_of(phantom: Phantom) -> str:
    """Return the exact caption: `a ct phantom with a small cyst on the left`."""
    if phantom.lesion == "none":
        return f"a {phantom.law} phantom without a lesion"
    return f"a {phantom.law} phantom with a {phantom.size} {phantom.lesion} on the {phantom.side}"


def label_of(phantom: Phantom) -> int:
    """Return the label of a phantom, a position in LESIONS."""
    return LESIONS.index(phantom.lesion)


def draw(phantom: Phantom) -> np.ndarray:
    """Return the pixels of a phantom, uint8 (64, 64, 3) with three equal channels."""
    canvas = np.full((SIDE, SIDE, 1), phantom.levels[0])
    for ellipse in phantom.ellipses:
        _add_ellipse(canvas, ellipse, phantom.levels[ellipse.tissue])
    line = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    right, down, corners = phantom.bias
    factor = 1 + right * line[None, :] + down * line[:, None] + corners * line[None, :] ** 2 * line[:, None] ** 2
    canvas *= factor[:, :, None]
    canvas += _NOISE * noise(phantom.seed, SIDE * SIDE).reshape(SIDE, SIDE, 1)
    return to_pixels(canvas).repeat(3, axis=2)


def _add_ellipse(canvas: np.ndarray, ellipse: Ellipse, level: float) -> None:
    turn, reach = ellipse.turn, max(ellipse.half_width, ellipse.half_height)
    cosine, sine = (1 - turn * turn) / (1 + turn * turn), 2 * turn / (1 + turn * turn)
    wide, high = ellipse.half_width / reach, ellipse.half_height / reach

    def inside(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        along, across = (cosine * u + sine * v) / wide, (cosine * v - sine * u) / high
        return along * along + across * across <= 1

    add_shape(canvas, inside, (ellipse.x, ellipse.y), (reach, reach), np.array([level]))


def vocabulary() -> set[str]:
    """Return all words that captions can contain."""
    fixed = "a phantom without lesion with small large on the left right"
    return {*LAWS, *LESIONS[1:], *fixed.split()}
