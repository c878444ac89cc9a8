"""What words are put on: squares of photos, and paper; and colours of a known grey level."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from draw import SIDE, Colour
from PIL import Image


@dataclass(frozen=True)
class Photo:
    """A photo inside the scikit-image wheel, which states the licence, and the squares that are cut from it."""

    file: str
    licence: str
    credit: str
    squares: tuple[tuple[int, int, int], ...]
    """Left, top, side; each is brought to 512 pixels."""


PHOTOS = (
    Photo("coffee.png", "CC0-1.0", "Rachel Michetti, courtesy of Pikolo Espresso Bar", ((0, 0, 400), (200, 0, 400))),
    Photo("astronaut.png", "public domain", "NASA (Eileen Collins)", ((0, 0, 512), (0, 230, 280), (256, 100, 256))),
    Photo("brick.png", "CC0-1.0", "CC0Textures, Bricks25", ((0, 0, 256), (200, 200, 300))),
    Photo("chelsea.png", "CC0-1.0", "Stefan van der Walt", ((0, 0, 300), (151, 0, 300))),
    Photo("rocket.jpg", "public domain", "SpaceX", ((100, 0, 427), (213, 0, 427), (0, 120, 300), (330, 127, 300))),
    Photo("grass.png", "CC0-1.0", "linolafett, DeviantArt, Grass-01", ((0, 0, 256), (200, 200, 300))),
    Photo(
        "hubble_deep_field.jpg",
        "public domain",
        "NASA, HubbleSite news release 2012-37",
        ((0, 0, 512), (400, 300, 512), (480, 40, 400)),
    ),
    Photo("gravel.png", "CC0-1.0", "CC0Textures, Gravel04", ((0, 0, 256), (256, 200, 220))),
    Photo(
        "retina.jpg",
        "CC0-1.0",
        "Mikael Häggström, Wikimedia Commons",
        ((300, 300, 512), (620, 560, 512), (250, 250, 900), (500, 200, 700)),
    ),
)


def squares() -> list[tuple[Photo, tuple[int, int, int]]]:
    """The first square of every photo, then the second, and so on."""
    return [(photo, photo.squares[turn]) for turn in range(4) for photo in PHOTOS if turn < len(photo.squares)]


def photo_ground(photo: Photo, square: tuple[int, int, int]) -> Image.Image:
    """A square of a photo, brought to 512 pixels."""
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise SystemExit("the photos are not here: pip install scikit-image")
    left, top, side = square
    whole = Image.open(Path(spec.origin).parent / "data" / photo.file).convert("RGB")
    return whole.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def level_for(below: float, contrast: int, random: np.random.Generator) -> float | None:
    """A grey level that many levels from what is below, darker or lighter; None where neither exists."""
    choices = [level for level in (below - contrast, below + contrast) if 0 <= level <= 255]
    return float(random.choice(choices)) if choices else None


def tinted(grey: float, random: np.random.Generator, most: float = 45) -> Colour:
    """A colour of that grey level by the weights of Pillow's mode L, each channel moved by up to about `most`."""
    weights = np.array([0.299, 0.587, 0.114])
    shift = random.uniform(-most, most, 3)
    colour = grey + shift - (shift * weights).sum()
    for _ in range(20):  # what leaves the range is cut, and the others make up for it
        colour = np.clip(colour, 0, 255)
        colour = colour + (grey - (colour * weights).sum())
    red, green, blue = (int(level) for level in np.clip(colour, 0, 255).round())
    return red, green, blue


def paper(number: int, base: float, random: np.random.Generator) -> Image.Image:
    """A page's ground: plain, shaded or grainy, by turns."""
    colour = np.array(tinted(base, random, most=0 if number % 5 == 0 else 14), dtype=np.float64)
    pixels = np.broadcast_to(colour, (SIDE, SIDE, 3)).copy()
    if number % 3 == 1:
        slope = np.linspace(-12, 12, SIDE)
        pixels += slope[:, None, None] if random.random() < 0.5 else slope[None, :, None]
    elif number % 3 == 2:
        coarse = Image.fromarray(random.normal(128, 30, (64, 64)).clip(0, 255).astype(np.uint8))
        soft = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float64) - 128
        pixels += soft[:, :, None] * 0.2 + random.normal(0, 2.5, (SIDE, SIDE, 1))
    return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))
