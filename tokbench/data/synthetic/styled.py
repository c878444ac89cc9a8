"""Shapes in eight drawing styles, with captions of the content; position and split give the image.

The caption names the content (shape, size, number) and never the style. The label is content and style together, so
that both can be judged. Colours belong to the style: no content has a colour of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tokbench.data.synthetic.raster import Draws, add_shape, noise, to_pixels
from tokbench.data.synthetic.scenes import SHAPES, plural

SIDE = 32
"""Height and width of the images in pixels."""

Split = Literal["train", "test", "reference"]

SIZES = ("large", "small")
CONTENTS = tuple((shape, size) for shape in SHAPES for size in SIZES)
"""A content is a shape with a size: one large shape, or three small ones."""

Colour = tuple[int, int, int]
_TINT = 14
"""Largest change of a colour's levels."""


@dataclass(frozen=True)
class Styled:
    """One image. content: a position in CONTENTS. style: a position in STYLES. places: centre and radius of each shape,
    in shares of the side. ink, paper: levels of the two colours. seed: of the texture's noise."""

    content: int
    style: int
    places: tuple[tuple[float, float, float], ...]
    ink: Colour
    paper: Colour
    seed: int


def _mix(share: np.ndarray, image: Styled) -> np.ndarray:
    """Return the paper's colour where `share` (H, W) is 0, and the ink's where it is 1, float (H, W, 3)."""
    ink, paper = np.array(image.ink, float), np.array(image.paper, float)
    return paper + share[:, :, None] * (ink - paper)


def _blur(values: np.ndarray, reach: int, axes: tuple[int, ...] = (0, 1)) -> np.ndarray:
    """Return the mean of 2 `reach` + 1 neighbours (H, W) along each axis, with the edge repeated."""
    for axis in axes:
        width = [(reach, reach) if one == axis else (0, 0) for one in range(2)]
        padded, length = np.pad(values, width, mode="edge"), values.shape[axis]
        parts = [padded.take(range(at, at + length), axis) for at in range(2 * reach + 1)]
        values = np.add.reduce(parts) / len(parts)
    return values


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Return rows (H, 1) and columns (1, W)."""
    return np.arange(SIDE)[:, None], np.arange(SIDE)[None, :]


def _flat(shape: np.ndarray, image: Styled) -> np.ndarray:
    return _mix(shape, image)


def _glow(shape: np.ndarray, image: Styled) -> np.ndarray:
    return _mix(_blur(_blur(shape, 1), 2), image)


def _halftone(shape: np.ndarray, image: Styled) -> np.ndarray:
    rows, columns = _grid()
    from_centre = (rows % 4 - 1.5) ** 2 + (columns % 4 - 1.5) ** 2
    return _mix((from_centre < 0.6 + 2.4 * shape).astype(float), image)


def _outline(shape: np.ndarray, image: Styled) -> np.ndarray:
    padded = np.pad(shape, 1, mode="edge")
    steps = [np.abs(shape - padded[1 + y : 1 + y + SIDE, 1 + x : 1 + x + SIDE]) for y, x in ((0, 1), (1, 0))]
    return _mix(np.maximum(*steps), image)


def _stripes(shape: np.ndarray, image: Styled) -> np.ndarray:
    rows, columns = _grid()
    return _mix(np.where((rows + columns) % 4 < 2, shape, 0.35 * shape), image)


def _grain(shape: np.ndarray, image: Styled) -> np.ndarray:
    speckles = noise(image.seed, SIDE * SIDE).reshape(SIDE, SIDE)
    return _mix(shape, image) + 34 * speckles[:, :, None]


def _mosaic(shape: np.ndarray, image: Styled) -> np.ndarray:
    cells = SIDE // 4
    means = np.add.reduce([shape[row::4, column::4] for row in range(4) for column in range(4)]) / 16
    shares = means + 0.12 * noise(image.seed, cells * cells).reshape(cells, cells)
    return _mix(shares.repeat(4, 0).repeat(4, 1).clip(0, 1), image)


def _brush(shape: np.ndarray, image: Styled) -> np.ndarray:
    strokes = _blur(noise(image.seed, SIDE * SIDE).reshape(SIDE, SIDE), 4, axes=(1,))
    return _mix((_blur(shape, 2, axes=(1,)) + 0.5 * strokes).clip(0, 1), image)


Style = tuple[Callable[[np.ndarray, Styled], np.ndarray], Colour, Colour]

STYLES: dict[str, Style] = {
    "flat": (_flat, (190, 60, 40), (245, 220, 170)),
    "glow": (_glow, (255, 225, 120), (20, 20, 60)),
    "halftone": (_halftone, (30, 30, 30), (240, 235, 215)),
    "outline": (_outline, (40, 60, 150), (250, 250, 250)),
    "stripes": (_stripes, (235, 245, 235), (30, 110, 60)),
    "grain": (_grain, (70, 70, 70), (175, 175, 175)),
    "mosaic": (_mosaic, (240, 140, 40), (90, 45, 130)),
    "brush": (_brush, (220, 110, 150), (40, 125, 130)),
}
"""The drawing function of each style, and the mean levels of its ink and its paper."""

CLASSES = len(CONTENTS) * len(STYLES)
"""Number of labels: content times len(STYLES) plus style."""


def make_styled(split: Split, position: int, label: int | None = None) -> Styled:
    """Return the image at a position of a split; the same arguments always give the same image.

    label: its content and style; None for the label that the position gives.
    """
    draws = Draws(f"tokbench styled 1/{split}/{position}")
    drawn = draws.below(CLASSES)
    content, style = divmod(drawn if label is None else label, len(STYLES))
    if CONTENTS[content][1] == "large":
        places = [(draws.between(0.4, 0.6), draws.between(0.4, 0.6), draws.between(0.28, 0.36))]
    else:
        cells = draws.some_of([(x, y) for x in (0.27, 0.73) for y in (0.27, 0.73)], 3)
        shift = draws.between(-0.03, 0.03), draws.between(-0.03, 0.03)
        places = [(x + shift[0], y + shift[1], draws.between(0.15, 0.18)) for x, y in cells]
    _, ink, paper = list(STYLES.values())[style]
    return Styled(content, style, tuple(places), _tinted(draws, ink), _tinted(draws, paper), draws.below(1 << 31))


def _tinted(draws: Draws, colour: Colour) -> Colour:
    red, green, blue = (min(255, max(0, level + round(draws.between(-_TINT, _TINT)))) for level in colour)
    return red, green, blue


def draw(image: Styled) -> np.ndarray:
    """Return the pixels of an image, uint8 (32, 32, 3)."""
    shape = np.zeros((SIDE, SIDE, 1))
    for x, y, radius in image.places:
        add_shape(shape, SHAPES[CONTENTS[image.content][0]], (x, y), (radius, radius), np.ones(1))
    style, _, _ = list(STYLES.values())[image.style]
    return to_pixels(style(shape[:, :, 0], image))


def content_caption(content: int) -> str:
    """Return the caption of a position in CONTENTS: `a large circle`, or `three small circles`."""
    shape, size = CONTENTS[content]
    return f"a large {shape}" if size == "large" else f"three small {plural(shape)}"


def caption_of(image: Styled) -> str:
    """Return the caption of an image, which names its content only."""
    return content_caption(image.content)


def label_of(image: Styled) -> int:
    """Return content times len(STYLES) plus style."""
    return image.content * len(STYLES) + image.style


def vocabulary() -> set[str]:
    """Return all words that captions can contain."""
    return {word for content in range(len(CONTENTS)) for word in content_caption(content).split()}
