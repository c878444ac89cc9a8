"""Pages of text of 256x256 pixels: nine kinds of layout, in Latin and in Japanese letters, with the text of every line.

The kinds are those of OmniDoc-TokenBench (arXiv:2605.13565), which crops its images from real documents. Here code lays
out random words, with letters as large as in crops of documents at 256 pixels. FreeType draws the letters, so another
version of it may change some pixels; the hash of the pixels in results shows this.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tokbench.data.annotations import Annotations, Word, ratio_of_word
from tokbench.data.synthetic.document_words import WORDS
from tokbench.data.synthetic.raster import Draws
from tokbench.errors import DataError

SIDE = 256
"""Height and width of the images in pixels."""

Split = Literal["test"]
Script = Literal["latin", "japanese"]
SCRIPTS: tuple[Script, ...] = ("latin", "japanese")

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]

_SCALE = 3
"""Pages are drawn three times larger and averaged over 3x3 pixels."""

_INK: Colour = (25, 25, 30)
_SANS, _BOLD, _SLANTED = "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique"
_SERIF, _SERIF_BOLD = "DejaVuSerif", "DejaVuSerif-Bold"
_JAPANESE = "ipaexg"

_LARGER = 1.2
"""Japanese letters are larger by this factor: at the same size their strokes would be finer."""

_HUES: tuple[Colour, ...] = ((30, 70, 140), (140, 35, 45), (25, 105, 70), (105, 60, 130), (150, 90, 20))
"""Dark colours of headings and areas."""


@dataclass(frozen=True)
class Style:
    """How letters look. face: file name of the font without its suffix. size: in pixels. colour: RGB levels."""

    face: str
    size: float
    colour: Colour = _INK


@dataclass(frozen=True)
class Line:
    """One line of text without gaps, or one cell of a table. x, y: its left edge and the top of its letters, in
    pixels."""

    text: str
    x: float
    y: float
    style: Style


@dataclass(frozen=True)
class Page:
    """One page. kind: a key of KINDS. paper: its colour. areas: coloured rectangles below the text. lines: its text."""

    kind: str
    script: Script
    paper: Colour
    areas: tuple[tuple[Box, Colour], ...]
    lines: tuple[Line, ...]


class _Writer:
    """Collects the lines and areas of a page whose words are chosen at random."""

    def __init__(self, draws: Draws, script: Script) -> None:
        self.draws, self.words = draws, WORDS[script]
        self.paper: Colour = (255, 255, 255)
        self.lines: list[Line] = []
        self.areas: list[tuple[Box, Colour]] = []
        self._latin = script == "latin"
        self._gap, self._comma, self._stop = (" ", ",", ".") if self._latin else ("", "、", "。")
        self.answers, self.question = ("ABCD", "?") if self._latin else ("アイウエ", "か")

    def style(self, face: str, size: float, colour: Colour = _INK) -> Style:
        """Return how the letters of a Latin page look, or those of a Japanese page in the same place."""
        return Style(face, size, colour) if self._latin else Style(_JAPANESE, _LARGER * size, colour)

    def word(self) -> str:
        """Return a word with a capital."""
        return self.draws.one_of(self.words).capitalize()

    def fitting(self, style: Style, width: float, most: int = 12) -> str:
        """Return as many words as fit into a width, at least one and at most `most`, the first with a capital."""
        text = self.word()
        for _ in range(most - 1):
            longer = f"{text}{self._gap}{self.draws.one_of(self.words)}"
            if width_of(longer, style) > width:
                break
            text = longer
        return text

    def number(self) -> str:
        """Return a number with three digits and two decimals."""
        return f"{100 + self.draws.below(900)}.{self.draws.below(100):02d}"

    def _stream(self) -> Iterator[str]:
        """Yield words of sentences without end; commas and full stops follow the words."""
        while True:
            length = 5 + self.draws.below(8)
            comma = 2 + self.draws.below(length)
            for place in range(length):
                word = self.draws.one_of(self.words) if place else self.word()
                yield word + (self._stop if place == length - 1 else self._comma if place == comma else "")

    def wrapped(self, style: Style, widths: Iterable[float]) -> Iterator[str]:
        """Yield lines of running text, one for each width."""
        words = self._stream()
        waiting = next(words)
        for width in widths:
            text, waiting = waiting, next(words)
            while width_of(longer := f"{text}{self._gap}{waiting}", style) <= width:
                text, waiting = longer, next(words)
            yield text

    def put(
        self, text: str, x: float, y: float, style: Style, align: Literal["left", "centre", "right"] = "left"
    ) -> None:
        """Add a line whose left edge, centre or right edge is at x."""
        shift = {"left": 0.0, "centre": 0.5, "right": 1.0}[align] * width_of(text, style)
        self.lines.append(Line(text, x - shift, y, style))

    def heading(self, x: float, y: float, width: float, style: Style) -> None:
        """Add a line of as many words as fit."""
        self.put(self.fitting(style, width), x, y, style)

    def column(self, box: Box, style: Style, paragraph: int = 0) -> None:
        """Fill a box with lines of text. paragraph: number of lines from indent to indent; 0 for none."""
        left, top, right, bottom = box
        leading = 1.33 * style.size
        rows = int((bottom - top - style.size) // leading) + 1
        indents = [8.0 if paragraph and row % paragraph == 0 else 0.0 for row in range(rows)]
        texts = self.wrapped(style, [right - left - indent for indent in indents])
        for row, (indent, text) in enumerate(zip(indents, texts, strict=True)):
            self.put(text, left + indent, top + row * leading, style)

    def rule(self, x: float, y: float, width: float, colour: Colour, thickness: float = 1.0) -> None:
        self.areas.append(((x, y, x + width, y + thickness), colour))


def _academic_paper(page: _Writer) -> None:
    page.heading(28, 10, 205, page.style(_SERIF_BOLD, 12))
    for column in (14.0, 134.0):
        page.heading(column, 34, 105, page.style(_BOLD, 9.5))
        page.column((column, 50, column + 110, 248), page.style(_SERIF, 9), paragraph=7)


def _book(page: _Writer) -> None:
    page.paper = (250, 246, 234)
    page.put(page.fitting(page.style(_SERIF, 9.5), 120, 2), 128, 10, page.style(_SERIF, 9.5), "centre")
    page.column((18, 30, 240, 234), page.style(_SERIF, 11), paragraph=5)
    page.put(str(10 + page.draws.below(400)), 128, 238, page.style(_SERIF, 9.5), "centre")


def _colour_textbook(page: _Writer) -> None:
    hue = page.draws.one_of(_HUES)
    page.areas.append(((0, 0, 256, 30), hue))
    page.heading(12, 7, 220, page.style(_BOLD, 13, (255, 255, 255)))
    page.column((12, 40, 246, 122), page.style(_SANS, 10.5))
    page.areas.append(((8, 128, 248, 206), _tint(hue, 5)))
    page.heading(16, 133, 215, page.style(_BOLD, 10.5, hue))
    page.column((16, 150, 242, 205), page.style(_SANS, 10))
    page.column((12, 213, 246, 252), page.style(_SANS, 10.5))


def _exam_paper(page: _Writer) -> None:
    page.heading(60, 7, 140, page.style(_BOLD, 11))
    page.rule(12, 24, 232, _INK)
    question, answer = page.style(_SANS, 10.5), page.style(_SANS, 10)
    for place in range(4):
        top = 32 + 56 * place
        page.put(f"{place + 1}. {page.fitting(question, 200, 5)}{page.question}", 12, top, question)
        for number, letter in enumerate(page.answers):
            x, y = 22 + 118 * (number % 2), top + 17 + 17 * (number // 2)
            page.put(f"{letter}) {page.draws.one_of(page.words)}", x, y, answer)


def _financial_report(page: _Writer) -> None:
    hue, cell = page.draws.one_of(_HUES), page.style(_SANS, 9.5)
    page.heading(12, 9, 225, page.style(_BOLD, 12, hue))
    page.areas.append(((10, 32, 246, 48), hue))
    first = 2015 + page.draws.below(8)
    for column in range(3):
        page.put(str(first + column), 138 + 52 * column, 34, page.style(_BOLD, 9.5, (255, 255, 255)), "right")
    for row in range(12):
        y = 52 + 16.5 * row
        page.put(page.fitting(cell, 70, 1), 14, y, cell)
        for column in range(3):
            page.put(page.number(), 138 + 52 * column, y, cell, "right")
        page.rule(10, y + 14, 236, (200, 200, 205))


def _magazine(page: _Writer) -> None:
    hue = page.draws.one_of(_HUES)
    page.paper = _tint(hue, 10)
    page.areas.append(((0, 0, 256, 62), hue))
    page.heading(14, 9, 225, page.style(_BOLD, 19, (255, 240, 190)))
    page.heading(14, 40, 225, page.style(_SLANTED, 11, (255, 255, 255)))
    text = page.style(_SANS, 10, (hue[0] // 2, hue[1] // 2, hue[2] // 2))
    for column in (14.0, 134.0):
        page.column((column, 74, column + 110, 248), text)


def _newspaper(page: _Writer) -> None:
    page.paper = (226, 224, 216)
    page.heading(10, 7, 236, page.style(_SERIF_BOLD, 18))
    page.rule(10, 34, 236, _INK, 1.5)
    for column in (10.0, 92.0, 174.0):
        page.column((column, 44, column + 74, 252), page.style(_SERIF, 8.8))


def _note(page: _Writer) -> None:
    page.paper = (255, 251, 224)
    style = page.style(_SLANTED, 12, (25, 40, 120))
    starts = [26 + page.draws.between(0, 8) for _ in range(11)]
    for row, text in enumerate(page.wrapped(style, [246 - x for x in starts])):
        y = 12 + 21.5 * row
        page.rule(0, y + 1.4 * style.size, 256, (176, 200, 226))
        page.put(text, starts[row], y + page.draws.between(-1, 1), style)
    page.rule(19, 0, 1, (230, 150, 150), SIDE)


def _slides(page: _Writer) -> None:
    dark, hue = page.draws.below(2) == 1, page.draws.one_of(_HUES)
    page.paper = hue if dark else (248, 248, 250)
    text: Colour = (245, 245, 245) if dark else _INK
    page.heading(16, 20, 220, page.style(_BOLD, 17, (255, 225, 140) if dark else hue))
    page.rule(16, 48, 224, text)
    for row in range(6):
        y = 60 + 31 * row
        page.areas.append(((18, y + 5, 23, y + 10), text))
        page.heading(32, y, 205, page.style(_SANS, 13, text))


def _tint(colour: Colour, part: int) -> Colour:
    """Return a light colour with one part in `part` of a colour."""
    red, green, blue = (255 - 255 // part + level // part for level in colour)
    return red, green, blue


KINDS: dict[str, Callable[[_Writer], None]] = {
    "academic paper": _academic_paper,
    "book": _book,
    "colour textbook": _colour_textbook,
    "exam paper": _exam_paper,
    "financial report": _financial_report,
    "magazine": _magazine,
    "newspaper": _newspaper,
    "note": _note,
    "slides": _slides,
}
"""The layouts of the nine kinds."""


def make_page(split: Split, position: int) -> Page:
    """Return the page at a position. The kind changes with every page, and the script after all nine kinds.

    Raises DataError if the fonts are not on this machine.
    """
    kind = list(KINDS)[position % len(KINDS)]
    script = SCRIPTS[position // len(KINDS) % len(SCRIPTS)]
    page = _Writer(Draws(f"tokbench documents 1/{split}/{position}"), script)
    KINDS[kind](page)
    return Page(kind, script, page.paper, tuple(page.areas), tuple(page.lines))


def annotations_of(page: Page) -> Annotations:
    """Return the lines of a page with their text and the boxes of their ink, in the order of the lines."""
    words = []
    for line in page.lines:
        left, top, right, bottom = _font(line.style).getbbox(line.text, anchor="la")
        edges = (line.x + left / _SCALE, line.y + top / _SCALE, line.x + right / _SCALE, line.y + bottom / _SCALE)
        box = (max(edges[0], 0.0), max(edges[1], 0.0), min(edges[2], float(SIDE)), min(edges[3], float(SIDE)))
        words.append(Word(line.text, box, ratio_of_word(box, line.text, (SIDE, SIDE))))
    return Annotations(tuple(words))


def draw(page: Page) -> np.ndarray:
    """Return the pixels of a page, uint8 (256, 256, 3)."""
    canvas = Image.new("RGB", (SIDE * _SCALE, SIDE * _SCALE), page.paper)
    pen = ImageDraw.Draw(canvas)
    for (left, top, right, bottom), colour in page.areas:
        edges = (round(left * _SCALE), round(top * _SCALE), round(right * _SCALE) - 1, round(bottom * _SCALE) - 1)
        pen.rectangle(edges, colour)
    for line in page.lines:
        place = round(line.x * _SCALE), round(line.y * _SCALE)
        pen.text(place, line.text, line.style.colour, _font(line.style), anchor="la")
    return np.asarray(canvas.reduce(_SCALE))


def width_of(text: str, style: Style) -> float:
    """Return the width of a line in pixels."""
    return _font(style).getlength(text) / _SCALE


def _font(style: Style) -> ImageFont.FreeTypeFont:
    return _load(style.face, round(style.size * _SCALE))


@lru_cache
def _load(face: str, size: int) -> ImageFont.FreeTypeFont:
    """Return a font of an installed wheel. size: in pixels of the canvas. Raises DataError without the wheel."""
    if face == _JAPANESE:
        path = _inside("matplotlib_fontja", f"fonts/{face}.ttf")
    else:
        path = _inside("matplotlib", f"mpl-data/fonts/ttf/{face}.ttf")
    # Basic layout: another machine's text-shaping library could place letters elsewhere.
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def _inside(package: str, file: str) -> Path:
    """Return a file of an installed package, which is not imported. Raises DataError if it is not there."""
    found = importlib.util.find_spec(package)
    path = Path(found.origin).parent / file if found and found.origin else None
    if path is None or not path.is_file():
        raise DataError(
            f"pages of text need {file} of the package {package.replace('_', '-')}; pip install 'tokbench[documents]'"
        )
    return path
