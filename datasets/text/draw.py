"""Draws words on a 512x512 image and knows where their ink is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from tokbench.data.annotations import Annotations, Word, ratio_of_word

SIDE = 512
FINE = 4
"""Text is drawn this many times larger, then reduced: at 5 px, hinting would move letters by much of their width."""
INK = 48
"""A pixel covered by at least this much of 255 belongs to the ink."""

_DEJAVU = "matplotlib/mpl-data/fonts/ttf/DejaVu"
FACES = {
    "Aileron": "",
    "DejaVu Sans": f"{_DEJAVU}Sans.ttf",
    "DejaVu Sans Bold": f"{_DEJAVU}Sans-Bold.ttf",
    "DejaVu Sans Mono": f"{_DEJAVU}SansMono.ttf",
    "DejaVu Serif": f"{_DEJAVU}Serif.ttf",
    "STIX General": "matplotlib/mpl-data/fonts/ttf/STIXGeneral.ttf",
    "Caladea": "font_caladea/files/Caladea-Regular.ttf",
    "Caladea Bold": "font_caladea/files/Caladea-Bold.ttf",
}
"""Fonts by name: files inside wheels; Aileron Regular is Pillow's own."""

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]


@cache
def font(face: str, size: float) -> ImageFont.FreeTypeFont:
    """`size` is the font size (the em) in pixels of the finished image."""
    if not FACES[face]:
        loaded = ImageFont.load_default(FINE * size)
        assert isinstance(loaded, ImageFont.FreeTypeFont)
        return loaded
    spec = find_spec(FACES[face].split("/")[0])
    if spec is None or spec.origin is None:
        raise SystemExit(f"{face} is not here: pip install matplotlib font-caladea")
    return ImageFont.truetype(Path(spec.origin).parent.parent / FACES[face], FINE * size)


def margin(size: float) -> int:
    """Pixels between a word's ink and its box: 1 to 3, as people leave when they draw boxes."""
    return max(1, round(size / 12))


@dataclass(frozen=True)
class Stamp:
    """A word ready to be put: its coverage as an L image, and where its baseline's start lies in it."""

    text: str
    size: float
    mask: Image.Image
    origin: tuple[int, int]
    ink: Box
    advance: float

    @property
    def extent(self) -> int:
        """The longer side of the box, as `ratio_of_word` measures it."""
        return max(self.ink[2] - self.ink[0], self.ink[3] - self.ink[1]) + 2 * margin(self.size)


def stamp(text: str, face: str, size: float) -> Stamp:
    loaded = font(face, size)
    left, top, right, bottom = loaded.getbbox(text, anchor="ls")
    x, y = FINE * (int(-left // FINE) + 3), FINE * (int(-top // FINE) + 3)
    width, height = FINE * (int((x + right) // FINE) + 3), FINE * (int((y + bottom) // FINE) + 3)
    fine = Image.new("L", (width, height))
    ImageDraw.Draw(fine).text((x, y), text, 255, loaded, "ls")
    mask = fine.reduce(FINE)
    ink = mask.point(lambda level: 255 * (level >= INK)).getbbox()
    assert ink is not None, text
    return Stamp(text, size, mask, (x // FINE, y // FINE), ink, loaded.getlength(text) / FINE)


class Canvas:
    """An image on which words are put, and their annotations."""

    def __init__(self, ground: Image.Image) -> None:
        self.image = ground.copy()
        self.words: list[Word] = []

    @property
    def annotations(self) -> Annotations:
        return Annotations(words=tuple(self.words))

    def box(self, word: Stamp, x: float, y: float) -> Box:
        """The box of a word whose baseline starts at (x, y), whole pixels."""
        left, top = round(x) - word.origin[0], round(y) - word.origin[1]
        edge = margin(word.size)
        x1, y1, x2, y2 = word.ink
        return left + x1 - edge, top + y1 - edge, left + x2 + edge, top + y2 + edge

    def free(self, box: Box, gap: int = 3) -> bool:
        """Whether a box is inside the image and at least `gap` pixels from every other."""
        inside = box[0] >= 2 and box[1] >= 2 and box[2] <= SIDE - 2 and box[3] <= SIDE - 2
        return inside and all(
            box[2] + gap <= word.box[0]
            or word.box[2] + gap <= box[0]
            or box[3] + gap <= word.box[1]
            or word.box[3] + gap <= box[1]
            for word in self.words
        )

    def under(self, box: Box) -> np.ndarray:
        """Grey levels (h, w) of what lies in a box."""
        return np.asarray(self.image.crop(box).convert("L"), dtype=np.float32)

    def plate(self, box: Box, colour: Colour, opacity: float) -> None:
        """A rectangle behind a word, a little larger than its box."""
        grown = (box[0] - 2, box[1] - 2, box[2] + 2, box[3] + 2)
        part = self.image.crop(grown)
        self.image.paste(Image.blend(part, Image.new("RGB", part.size, colour), opacity), grown[:2])

    def put(
        self, word: Stamp, x: float, y: float, colour: Colour, outline: Colour | None = None, known: bool = True
    ) -> None:
        """Write a word; `known` ones get an annotation. The outline is a soft edge of another colour."""
        at = (round(x) - word.origin[0], round(y) - word.origin[1])
        if outline:
            grown = ImageChops.add(word.mask.filter(ImageFilter.MaxFilter(3)), word.mask)
            self.image.paste(outline, at, grown.filter(ImageFilter.GaussianBlur(0.6)))
        self.image.paste(colour, at, word.mask)
        if known:
            box = self.box(word, x, y)
            self.words.append(Word(word.text, box, ratio_of_word(box, word.text, (SIDE, SIDE))))
