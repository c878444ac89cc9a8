"""Images of one small object on a texture, with captions; position and split give the image.

The object covers 2 to 4 % of the image. The caption names it and the mean level of the texture, so that most patches
hold little that a caption could be matched with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tokbench.data.synthetic.raster import Box, Draws, add_shape, noise, to_pixels
from tokbench.data.synthetic.scenes import BACKGROUNDS, CLASSES, COLOURS, SHAPES

SIDE = 64
"""Height and width of the images in pixels."""

Split = Literal["train", "test"]
Texture = Literal["stripes", "checks", "cells"]

TEXTURES: tuple[Texture, ...] = ("stripes", "checks", "cells")

_TINT = 12
"""Largest change of a colour's levels."""


@dataclass(frozen=True)
class TexturedImage:
    """One image.

    shape, colour: keys of SHAPES and COLOURS. x, y: the centre of the object in shares of the side. radius: half its
    height, in the same unit. rgb: its levels. background: a key of BACKGROUNDS, the mean level of the texture. texture:
    the pattern. period: the size of its parts in pixels. contrast: the levels between its two values, by channel. seed:
    of the levels of `cells`.
    """

    shape: str
    colour: str
    x: float
    y: float
    radius: float
    rgb: tuple[int, int, int]
    background: str
    texture: Texture
    period: int
    contrast: tuple[float, float, float]
    seed: int


def make_textured(split: Split, position: int) -> TexturedImage:
    """Return the image at a position of a split. The same arguments always give the same image."""
    draws = Draws(f"tokbench textured 1/{split}/{position}")
    shape, colour = draws.one_of(list(SHAPES)), draws.one_of(list(COLOURS))
    radius = draws.between(0.085, 0.115)
    x, y = (draws.between(0.15, 0.85) for _ in range(2))
    red, green, blue = (min(255, max(0, level + round(draws.between(-_TINT, _TINT)))) for level in COLOURS[colour])
    strength = draws.between(25, 60)
    first, second, third = (strength * draws.between(0.6, 1.0) for _ in range(3))
    return TexturedImage(
        shape, colour, x, y, radius, (red, green, blue), draws.one_of(list(BACKGROUNDS)), draws.one_of(TEXTURES),
        2 + draws.below(5), (first, second, third), draws.below(2**30),
    )  # fmt: skip


def caption_of(image: TexturedImage) -> str:
    """Return the caption: `a small red circle on a white background`."""
    return f"a small {image.colour} {image.shape} on a {image.background} background"


def label_of(image: TexturedImage) -> int:
    """Return the label of an image, a position in `scenes.CLASSES`."""
    return CLASSES.index(f"{image.colour} {image.shape}")


def boxes_of(image: TexturedImage) -> list[Box]:
    """Return the box of the object with the class 0; edges are in shares of the side."""
    x, y, reach = image.x, image.y, image.radius
    return [(0, x - reach, y - reach, x + reach, y + reach)]


def draw(image: TexturedImage) -> np.ndarray:
    """Return the pixels, uint8 (64, 64, 3)."""
    rows, columns = np.arange(SIDE)[:, None] // image.period, np.arange(SIDE)[None, :] // image.period
    if image.texture == "stripes":
        pattern = np.broadcast_to((rows if image.seed % 2 else columns) % 2, (SIDE, SIDE)) - 0.5
    elif image.texture == "checks":
        pattern = (rows + columns) % 2 - 0.5
    else:
        cells = -(-SIDE // image.period)
        pattern = 0.5 * noise(image.seed, cells * cells).reshape(cells, cells)[rows, columns]
    canvas = BACKGROUNDS[image.background] + pattern[:, :, None] * np.array(image.contrast)
    add_shape(canvas, SHAPES[image.shape], (image.x, image.y), (image.radius, image.radius), np.array(image.rgb, float))
    return to_pixels(canvas)


def prompts() -> list[list[str]]:
    """Return the captions of each class, one for each background, in the order of `scenes.CLASSES`."""
    return [[f"a small {name} on a {background} background" for background in BACKGROUNDS] for name in CLASSES]


def vocabulary() -> set[str]:
    """Return all words that captions can contain."""
    return {*SHAPES, *COLOURS, *BACKGROUNDS, "a", "small", "on", "background"}
