"""The two kinds of image: words strewn over a photo, and pages of text. Bands of size get equally many words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from draw import FACES, SIDE, Canvas, Stamp, margin, stamp
from grounds import level_for, paper, photo_ground, squares, tinted
from words import SENTENCES, WORDS, telling

BANDS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.08)
"""Edges of the bands of `Word.ratio` in which words are counted; the inner ones are all of TokBench's."""
SMALLEST, LARGEST = 5.0, 40.0
"""Font sizes in pixels."""
SMALL = 10.0
"""Smaller words are never fainter than 100 grey levels: nobody could read them."""
CONTRASTS = (60, 100, 150, 200)
"""Grey levels between a word and the mean of what is under it, from faint to print; a mid-grey ground allows 128."""
STREWN = 15
"""Words on a photo."""
BLOCKS, WORDS_A_BLOCK = 5, 4
"""Blocks on a page, and words in each."""


class Scenes:
    """Draws images one after another; counts each band's words, so that the next ones go to the emptiest."""

    def __init__(self) -> None:
        self._strewn: Counter[int] = Counter()
        self._printed: Counter[int] = Counter()
        self._words = [word for word in WORDS if telling(word)]
        self._told = 0

    def words(self, number: int) -> tuple[Canvas, str, str]:
        """Words of any size, font and colour over a photo. Returns the image, its licence and the photo's credit."""
        random = np.random.default_rng([1, number])
        photo, square = squares()[number]
        canvas = Canvas(photo_ground(photo, square))
        for _ in range(4000):
            if len(canvas.words) == STREWN:
                break
            self._strew(canvas, random)
        self._strewn.update(band_of(word.ratio) for word in canvas.words)
        return canvas, photo.licence, f"{photo.credit}, cropped, with words drawn over it by the tokbench authors"

    def _strew(self, canvas: Canvas, random: np.random.Generator) -> None:
        drawn = Counter(band_of(word.ratio) for word in canvas.words)
        band = emptiest(self._strewn + drawn, random)
        word = self._sized(band, random)
        if word is None:
            return
        x, y = random.uniform(0, SIDE, 2)
        box = canvas.box(word, x, y)
        if not canvas.free(box):
            return
        grey = canvas.under(box)
        contrast = max(int(random.choice(CONTRASTS)), 100 if word.size < SMALL else 0)
        style = random.choice(["plain", "outline", "plate"], p=[0.6, 0.2, 0.2])
        level = level_for(float(grey.mean()), contrast, random)
        if style == "plate":
            below = float(np.clip(grey.mean() + random.uniform(-40, 40), 20, 235))
            level = level_for(below, contrast, random)
            if level is not None and canvas.free(box, gap=7):
                canvas.plate(box, tinted(below, random), 0.8)
                canvas.put(word, x, y, tinted(level, random))
        elif level is not None and style == "outline" and word.size >= 14 and grey.std() < 60:
            edge = tinted(20.0 if level > 128 else 240.0, random)
            canvas.put(word, x, y, tinted(level, random), edge)
        elif level is not None and grey.std() * 3 < contrast:  # a word that drowns in its ground tests nothing
            canvas.put(word, x, y, tinted(level, random))

    def _sized(self, band: int, random: np.random.Generator) -> Stamp | None:
        """A random word in a random font, as large as the band asks."""
        text = cased(str(random.choice(self._words)), random)
        face = str(random.choice(list(FACES)))
        aim = SIDE * float(np.exp(random.uniform(np.log(BANDS[band]), np.log(BANDS[band + 1]))))
        size = fitting(text, face, aim)
        word = stamp(text, face, size) if size else None
        return word if word and band_of(word.extent / len(text) / SIDE) == band else None

    def page(self, number: int) -> tuple[Canvas, str, str]:
        """Blocks of running text, each in one font and size, on a ground of one colour, shaded or grainy."""
        random = np.random.default_rng([2, number])
        base = random.uniform(20, 60) if number % 4 == 3 else random.uniform(215, 255)
        canvas = Canvas(paper(number, base, random))
        contrast = int(random.choice(CONTRASTS))
        left = int(random.integers(18, 60))
        blocks = [self._block(band, left, random) for band in self._bands(random)]
        spare = SIDE - 24 - sum(block.height for block in blocks)
        y = max(8.0, spare / (len(blocks) + 1))
        for block in blocks:
            level = level_for(base, max(contrast, 100 if block.size < SMALL else 0), random)
            colour = tinted(255.0 - base if level is None else level, random)
            for word, x, below in block.words:
                if canvas.free(canvas.box(word, x, y + below), gap=0):  # else the page is full
                    canvas.put(word, x, y + below, colour, known=telling(word.text))
            y += block.height + max(0.0, spare / (len(blocks) + 1))
        self._printed.update(band_of(word.ratio) for word in canvas.words)
        return canvas, "Apache-2.0", "the tokbench authors"

    def _bands(self, random: np.random.Generator) -> list[int]:
        """The bands of a page's blocks: those with the fewest words, large ones mostly above small ones."""
        planned, bands = self._printed.copy(), []
        for _ in range(BLOCKS):
            bands.append(emptiest(planned, random))
            planned[bands[-1]] += WORDS_A_BLOCK
        return sorted(bands, reverse=True) if random.random() < 0.7 else bands

    def _block(self, band: int, left: int, random: np.random.Generator) -> Block:
        """The next words of the running text in one font and size, in lines."""
        stream = " ".join(SENTENCES).split()
        words = [stream[(self._told + i) % len(stream)] for i in range(WORDS_A_BLOCK)]
        self._told += WORDS_A_BLOCK
        face = str(random.choice(list(FACES)))
        aim = SIDE * float(np.exp(random.uniform(np.log(BANDS[band] * 1.1), np.log(BANDS[band + 1] * 0.9))))
        size = fitting(" ".join(words), face, aim) or (SMALLEST if band < 2 else LARGEST)
        leading, gap = 1.45 * size + 1, 0.3 * size + 2 * margin(size)
        x, below, placed = float(left), size, []
        for text in words:
            word = stamp(text, face, size)
            if x > left and x + word.advance > SIDE - 16:
                x, below = float(left), below + leading
            placed.append((word, x, below))
            x += word.advance + gap
        return Block(size, placed, below + 0.4 * size)


@dataclass(frozen=True)
class Block:
    """Lines of text: each word with its x and its baseline below the block's upper edge."""

    size: float
    words: list[tuple[Stamp, float, float]]
    height: float


def emptiest(counts: Counter[int], random: np.random.Generator) -> int:
    return min(range(len(BANDS) - 1), key=lambda band: (counts[band], random.random()))


def band_of(ratio: float) -> int:
    return int(np.searchsorted(BANDS, ratio, "right")) - 1


def fitting(text: str, face: str, aim: float) -> float | None:
    """The font size at which a text takes `aim` pixels a character; None where no allowed size does."""
    wide = stamp(text, face, LARGEST)
    size = LARGEST * aim * len(text) / (wide.extent - 2 * margin(LARGEST))
    size = LARGEST * (aim * len(text) - 2 * margin(size)) / (wide.extent - 2 * margin(LARGEST))
    return round(size, 1) if SMALLEST <= size <= LARGEST else None


def cased(text: str, random: np.random.Generator) -> str:
    if not text.isalpha():
        return text
    return str(random.choice([text, text.capitalize(), text.upper()], p=[0.4, 0.35, 0.25]))
