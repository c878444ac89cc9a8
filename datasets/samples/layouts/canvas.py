"""A 256x256 page to draw on. Text that would be clipped or would cover other text is an error, so no page has any."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFont

SIZE = 256
FINE = 4
"""Text is drawn this many times larger, then reduced: hinting at 8 px would close the gaps between words."""

Colour = str | tuple[int, int, int]
Box = tuple[float, float, float, float]
Points = Sequence[tuple[float, float]]


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own scalable font (Aileron Regular, a subset) at FINE times `size`: no font file has to be installed."""
    loaded = ImageFont.load_default(FINE * size)
    if not isinstance(loaded, ImageFont.FreeTypeFont):
        raise RuntimeError("this Pillow was built without FreeType; the pages need its scalable default font")
    return loaded


def width_of(words: str, size: int) -> float:
    """Width in pixels of one line of text."""
    return font(size).getlength(words) / FINE


class Page:
    """An RGB image, 256x256 or another size, and the boxes of the text on it."""

    def __init__(self, background: Colour | Image.Image = "white", size: tuple[int, int] = (SIZE, SIZE)) -> None:
        self.image = background.copy() if isinstance(background, Image.Image) else Image.new("RGB", size, background)
        self.draw = ImageDraw.Draw(self.image)
        self._boxes: list[tuple[Box, str]] = []

    def text(
        self, x: float, y: float, words: str, size: int, fill: Colour = "black", anchor: str = "la", bold: bool = False
    ) -> float:
        """One line of text; returns its width in pixels. `anchor` is Pillow's; bold is a thin stroke."""
        stroke = size * FINE * 0.03 if bold else 0.0
        x0, y0, x1, y1 = font(size).getbbox(words, anchor=anchor, stroke_width=stroke)
        self._claim((x + x0 / FINE, y + y0 / FINE, x + x1 / FINE, y + y1 / FINE), words)
        left, top = math.floor(x + x0 / FINE) - 1, math.floor(y + y0 / FINE) - 1
        mask = Image.new("L", (FINE * (math.ceil((x1 - x0) / FINE) + 3), FINE * (math.ceil((y1 - y0) / FINE) + 3)))
        at = (round(FINE * (x - left)), round(FINE * (y - top)))
        ImageDraw.Draw(mask).text(at, words, 255, font(size), anchor, stroke_width=stroke)
        self._ink(mask, left, top, fill)
        return width_of(words, size)

    def turned(self, x: int, y: int, words: str, size: int, angle: float, fill: Colour = "black") -> None:
        """One line of text turned by `angle` degrees against the clock, with its centre at (x, y)."""
        x0, y0, x1, y1 = font(size).getbbox(words)
        mask = Image.new("L", (round(x1 - x0) + 2 * FINE, round(y1 - y0) + 2 * FINE))
        ImageDraw.Draw(mask).text((FINE - x0, FINE - y0), words, 255, font(size))
        mask = mask.rotate(angle, Image.Resampling.BICUBIC, expand=True)
        left, top = x - mask.width // (2 * FINE), y - mask.height // (2 * FINE)
        self._claim((left, top, left + mask.width / FINE, top + mask.height / FINE), words)
        self._ink(mask, left, top, fill)

    def paragraph(
        self,
        x: float,
        y: float,
        width: float,
        words: str,
        size: int,
        fill: Colour = "black",
        justify: bool = False,
        leading: float = 1.35,
        bottom: float = SIZE - 4,
        indent: float = 0,
    ) -> float:
        """Wrapped text; returns the y below it. Lines that would pass `bottom` are left to the next page, not drawn."""
        space = width_of(" ", size)
        for line, last, shift in _lines(words, size, width, indent):
            if y + size * 1.2 > bottom:
                break
            used = sum(width_of(word, size) for word in line)
            gap = (width - shift - used) / max(1, len(line) - 1)
            at = x + shift
            if not justify or last or gap > 4.5 * space:
                self.text(at, y, " ".join(line), size, fill)
            else:
                for word in line:
                    at += self.text(at, y, word, size, fill) + gap
            y += round(size * leading)
        return y

    def rule(self, x0: float, y0: float, x1: float, y1: float, fill: Colour = "black", width: int = 1) -> None:
        self.draw.line((x0, y0, x1, y1), fill, width)

    def panel(
        self,
        x0: float,
        y0: float,
        x1: float,
        y1: float,
        fill: Colour | None = None,
        outline: Colour | None = None,
        radius: float = 0,
        width: int = 1,
    ) -> None:
        if radius:
            self._smooth("rounded_rectangle", [(x0, y0), (x1, y1)], fill, outline, width, radius=FINE * radius)
        else:
            self.draw.rectangle((x0, y0, x1, y1), fill, outline, width)

    def ellipse(self, box: Box, fill: Colour | None = None, outline: Colour | None = None, width: int = 1) -> None:
        self._smooth("ellipse", [box[:2], box[2:]], fill, outline, width)

    def pie(
        self, box: Box, start: float, end: float, fill: Colour, outline: Colour | None = None, width: int = 1
    ) -> None:
        self._smooth("pieslice", [box[:2], box[2:]], fill, outline, width, start=start, end=end)

    def polygon(self, points: Points, fill: Colour, outline: Colour | None = None, width: int = 1) -> None:
        self._smooth("polygon", points, fill, outline, width)

    def line(self, points: Points, fill: Colour, width: int = 1) -> None:
        mask = Image.new("L", (FINE * self.image.width, FINE * self.image.height))
        ImageDraw.Draw(mask).line([(FINE * x + 1.5, FINE * y + 1.5) for x, y in points], 255, FINE * width, "curve")
        self._ink(mask, 0, 0, fill)

    def barcode(self, x: int, y: int, digits: str, height: int, fill: Colour = "black") -> int:
        """Bars whose widths come from the digits (not a real symbology); returns the x after them."""
        for i, digit in enumerate(digits):
            wide = 1 + int(digit) % 3
            self.draw.rectangle((x, y, x + wide - 1, y + height), fill)
            x += wide + 1 + (int(digit) + i) % 2
        return x

    def _ink(self, mask: Image.Image, left: int, top: int, fill: Colour) -> None:
        small = mask.reduce(FINE)
        self.image.paste(Image.new("RGB", small.size, fill), (left, top), small)

    def _smooth(
        self, kind: str, points: Points, fill: Colour | None, outline: Colour | None, width: int, **more: float
    ) -> None:
        """A shape with smooth edges: Pillow's own have jagged ones. The last corner of a box is a whole pixel."""
        last = FINE - 1.0 if kind != "polygon" else 0.0
        fine = [(FINE * x, FINE * y) for x, y in points[:-1]] + [
            (FINE * points[-1][0] + last, FINE * points[-1][1] + last)
        ]
        for colour, inside in ((fill, True), (outline, False)):
            if colour is not None:
                mask = Image.new("L", (FINE * self.image.width, FINE * self.image.height))
                value = {"fill": 255} if inside else {"outline": 255, "width": FINE * width}
                getattr(ImageDraw.Draw(mask), kind)(fine, **value, **more)
                self._ink(mask, 0, 0, colour)

    def _claim(self, box: Box, words: str) -> None:
        left, top, right, bottom = box
        if left < 1 or top < 1 or right > self.image.width - 1 or bottom > self.image.height - 1:
            raise ValueError(f"{words!r} is clipped: its box is {box}")
        for (x0, y0, x1, y1), other in self._boxes:
            if min(x1, right) - max(x0, left) > 1 and min(y1, bottom) - max(y0, top) > 1:
                raise ValueError(f"{words!r} covers {other!r}")
        self._boxes.append((box, words))


def _lines(words: str, size: int, width: float, indent: float) -> list[tuple[list[str], bool, float]]:
    """Greedy line breaking: (words, whether it ends a paragraph, its indent) for each line; newlines end paragraphs."""
    lines: list[tuple[list[str], bool, float]] = []
    for block in words.split("\n"):
        line: list[str] = []
        shift = indent
        for word in block.split():
            if line and width_of(" ".join([*line, word]), size) > width - shift:
                lines.append((line, False, shift))
                line, shift = [], 0.0
            line.append(word)
        lines.append((line, True, shift))
    return lines
