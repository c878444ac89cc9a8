"""Synthetic clips: flat sprites that move over a textured ground under a panning camera, with exact flow and masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokbench.data.synthetic.raster import Draws
from tokbench.errors import DataError

SIDE, FRAMES, FPS = 64, 16, 10.0
"""Height and width in pixels, the usual number of frames, and frames a second."""

SPLITS = ("train", "test")

KINDS = ("disc", "square", "diamond", "ring")
"""The forms of sprites."""

_MAX_SPEED, _MAX_PAN = 3, 2
"""The largest speeds of sprites and camera in pixels a frame and axis. Speeds are whole numbers of pixels, so that flow
is exact without interpolation."""

_CELL = 8
"""The side of the cells of the ground in pixels."""


@dataclass(frozen=True)
class Sprite:
    """One sprite.

    kind: one of KINDS. x, y: its centre in the first frame, in pixels of the ground. dx, dy: its speed in pixels a
    frame. radius: half its size in pixels. colour: red, green and blue.
    """

    kind: str
    x: int
    y: int
    dx: int
    dy: int
    radius: int
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class Scene:
    """A clip. pan: the speed of the camera (x, y) in pixels a frame. ground: two colours and the seed of the cells.
    sprites: from back to front."""

    pan: tuple[int, int]
    ground: tuple[tuple[int, int, int], tuple[int, int, int], int]
    sprites: tuple[Sprite, ...]


@dataclass(frozen=True)
class Drawn:
    """A drawn clip.

    frames: uint8 (T, H, W, 3). masks: uint8 (T, H, W), 0 for the ground, else the number of the frontmost sprite.
    flow, visible: as in `tokbench.modalities.video.sources.Clip`.
    """

    frames: np.ndarray
    masks: np.ndarray
    flow: np.ndarray
    visible: np.ndarray


def check_split(split: str) -> None:
    """Raise DataError if there is no such split."""
    if split not in SPLITS:
        raise DataError(f"sprites have no split {split!r}; there are: {', '.join(SPLITS)}")


def make_scene(split: str, position: int) -> Scene:
    """Return the clip at a position of a split. The same arguments always give the same clip."""
    draws = Draws(f"tokbench sprites 1/{split}/{position}")
    pan = draws.below(2 * _MAX_PAN + 1) - _MAX_PAN, draws.below(2 * _MAX_PAN + 1) - _MAX_PAN
    ground = (_colour(draws, 40, 140), _colour(draws, 90, 190), draws.below(1 << 31))
    found = []
    for _ in range(1 + draws.below(4)):
        radius = 5 + draws.below(8)
        speed = [draws.below(2 * _MAX_SPEED + 1) - _MAX_SPEED for _ in range(2)]
        found.append(
            Sprite(
                draws.one_of(KINDS), draws.below(SIDE), draws.below(SIDE), speed[0], speed[1], radius,
                _colour(draws, 0, 256),
            )
        )  # fmt: skip
    return Scene(pan, ground, tuple(found))


def _colour(draws: Draws, low: int, high: int) -> tuple[int, int, int]:
    red, green, blue = (low + draws.below(high - low) for _ in range(3))
    return red, green, blue


def draw(scene: Scene, frames: int = FRAMES) -> Drawn:
    """Return the frames, masks and flow of a clip."""
    pictures = np.empty((frames, SIDE, SIDE, 3), np.uint8)
    masks = np.zeros((frames, SIDE, SIDE), np.uint8)
    for time in range(frames):
        left, top = scene.pan[0] * time, scene.pan[1] * time
        rows, columns = np.mgrid[top : top + SIDE, left : left + SIDE]
        pictures[time] = _ground(scene, rows, columns)
        for number, sprite in enumerate(scene.sprites, 1):
            inside = _inside(sprite, columns - sprite.x - sprite.dx * time, rows - sprite.y - sprite.dy * time)
            pictures[time][inside] = sprite.colour
            masks[time][inside] = number
    # The displacement in the picture is that in the scene minus that of the camera.
    speeds = np.array([(0, 0), *((sprite.dx, sprite.dy) for sprite in scene.sprites)]) - np.array(scene.pan)
    flow = speeds[masks[1:]].transpose(0, 3, 1, 2).astype(np.float32)
    return Drawn(pictures, masks, flow, _visible(masks, flow))


def _ground(scene: Scene, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the ground, uint8 (H, W, 3): cells whose mix of two colours follows from a hash of their position."""
    first, second, seed = scene.ground
    cells = ((rows // _CELL) * 73856093) ^ ((columns // _CELL) * 19349663) ^ seed
    share = ((cells * 2654435761 >> 8) % 256)[..., None]
    return ((np.array(first) * (255 - share) + np.array(second) * share) // 255).astype(np.uint8)


def _inside(sprite: Sprite, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return whether points, in pixels from the centre, are inside a sprite."""
    radius = sprite.radius
    if sprite.kind == "square":
        return np.maximum(np.abs(x), np.abs(y)) <= radius
    if sprite.kind == "diamond":
        return np.abs(x) + np.abs(y) <= radius
    squares = x * x + y * y
    if sprite.kind == "ring":
        return (squares <= radius * radius) & (4 * squares >= radius * radius)
    return squares <= radius * radius


def _visible(masks: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Return bool (T - 1, H, W): whether the point of a pixel was visible in the frame before."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    found = np.zeros(masks[1:].shape, bool)
    for time, (x, y) in enumerate(flow.astype(int)):
        before_x, before_y = columns - x, rows - y
        inside = (before_x >= 0) & (before_x < SIDE) & (before_y >= 0) & (before_y < SIDE)
        same = masks[time][before_y.clip(0, SIDE - 1), before_x.clip(0, SIDE - 1)] == masks[time + 1]
        found[time] = inside & same
    return found
