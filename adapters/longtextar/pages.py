"""Training images of rendered text, drawn with Pillow's own font; the same index always gives the same image."""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SIZES = range(8, 17)
"""Font sizes in px."""
PHOTOS = 0.3
"""Share of the images whose ground is a photo; the others have one colour."""
_LETTERS = "eeeeeeeeeeeetttttttttaaaaaaaaooooooooiiiiiiinnnnnnnsssssshhhhhhrrrrrrddddlllluuucccmmmwwffggyyppbbvkjxqz"
_SEED = "tokbench rendered text 1"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    loaded = ImageFont.load_default(size)
    assert isinstance(loaded, ImageFont.FreeTypeFont)
    return loaded


def _word(draw: random.Random) -> str:
    """Draw a word of letters with about their frequencies in English, in one of four cases, or a number."""
    letters = "".join(draw.choice(_LETTERS) for _ in range(draw.randint(1, 9)))
    kind = draw.random()
    if kind < 0.1:
        return str(draw.randint(0, 9999))
    word = letters.upper() if kind < 0.2 else letters.capitalize() if kind < 0.35 else letters
    return word + (draw.choice(".,;:!?") if draw.random() < 0.12 else "")


def page(index: int, photo: Tensor) -> Tensor:
    """Draw lines of words across a whole image, uint8 (3, H, W); `photo` (3, H, W) is the ground of some images.

    The image looks like a part of a page: words are cut off at its borders.
    """
    draw = random.Random(f"{_SEED} {index}")
    height, width = photo.shape[1:]
    if draw.random() < PHOTOS:
        image = Image.fromarray(photo.permute(1, 2, 0).numpy())
        light = float(photo.float().mean()) > 127
    else:
        light = draw.random() < 0.7
        levels = (200, 255) if light else (0, 70)
        image = Image.new("RGB", (width, height), tuple(draw.randint(*levels) for _ in range(3)))
    ink = tuple(draw.randint(*((0, 90) if light else (170, 255))) for _ in range(3))
    size = draw.choice(SIZES)
    font, bold, gap = _font(size), draw.random() < 0.25, draw.uniform(1.15, 1.6) * size
    canvas, top = ImageDraw.Draw(image), -draw.uniform(0, gap)
    while top < height:
        line = " ".join(_word(draw) for _ in range(width // (2 * size) + 3))
        canvas.text((-draw.uniform(0, 2 * size), top), line, ink, font, stroke_width=int(bold))
        top += gap
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def with_pages(photos: Tensor, share: float) -> Tensor:
    """Replace a `share` of photos uint8 (N, 3, H, W), spread evenly, by pages of text. 0 keeps all photos."""
    count = torch.arange(len(photos) + 1) * share
    chosen = (count[1:].floor() > count[:-1].floor()).nonzero().flatten().tolist()
    mixed = photos.clone()
    for index in chosen:
        mixed[index] = page(index, photos[index].cpu()).to(photos.device)
    return mixed
