"""Synthetic shapes: unions and differences of spheres, boxes, tori and capsules, given by signed distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokbench.data.synthetic.raster import Draws
from tokbench.errors import DataError

SPLITS = ("train", "test")

KINDS = ("sphere", "box", "torus", "capsule")
"""The forms of parts. The label of a shape is the form of its first part."""


@dataclass(frozen=True)
class Part:
    """One part.

    kind: one of KINDS. centre: in [-1, 1]. size: three half sizes. axis: the axis of symmetry, 0 to 2. minus: whether
    it is cut out of the parts before it. colour: red, green and blue.
    """

    kind: str
    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    axis: int
    minus: bool
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class Solid:
    """A shape: its parts, the first of which is never cut out."""

    parts: tuple[Part, ...]


def check_split(split: str) -> None:
    """Raise DataError if there is no such split."""
    if split not in SPLITS:
        raise DataError(f"solids have no split {split!r}; there are: {', '.join(SPLITS)}")


def make_solid(split: str, position: int) -> Solid:
    """Return the shape at a position of a split. The same arguments always give the same shape."""
    draws = Draws(f"tokbench solids 1/{split}/{position}")
    parts = []
    for number in range(1 + draws.below(3)):
        kind, first = draws.one_of(KINDS), number == 0
        reach = 0.15 if first else 0.5
        centre = [draws.between(-reach, reach) for _ in range(3)]
        low, high = (0.35, 0.75) if first else (0.15, 0.45)
        size = [draws.between(low, high) for _ in range(3)]
        axis, minus = draws.below(3), not first and draws.below(3) == 0
        colour = [40 + draws.below(200) for _ in range(3)]
        parts.append(Part(kind, _triple(centre), _triple(size), axis, minus, (colour[0], colour[1], colour[2])))
    return Solid(tuple(parts))


def _triple(values: list[float]) -> tuple[float, float, float]:
    return values[0], values[1], values[2]


def distance(part: Part, points: np.ndarray) -> np.ndarray:
    """Return the signed distances (n,) of points (n, 3) to the surface of a part, negative inside."""
    local = np.roll(points - np.array(part.centre), -part.axis, axis=1)
    across, along = np.linalg.norm(local[:, 1:], axis=1), local[:, 0]
    first, second, third = part.size
    if part.kind == "sphere":
        return np.linalg.norm(local, axis=1) - first
    if part.kind == "box":
        outside = np.abs(local) - np.array([first, second, third])
        return np.linalg.norm(outside.clip(0), axis=1) + outside.max(1).clip(max=0)
    if part.kind == "torus":
        return np.hypot(across - first, along) - 0.4 * min(first, second)
    return np.hypot(across, along - along.clip(-first / 2, first / 2)) - 0.6 * second


def surface(solid: Solid, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates (n, 3) of the voxels at the surface of a shape, in 0..side-1, and their colours, uint8
    (n, 3).

    They are the voxels whose centre is inside and that have one of six neighbours outside. The cube [-1, 1] is the
    grid. The colour is that of the part whose surface is nearest, darker towards one side.
    """
    axis = (np.arange(side) + 0.5) / side * 2 - 1
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    total = np.full(len(points), np.inf)
    nearest = np.zeros(len(points), int)
    for number, part in enumerate(solid.parts):
        own = distance(part, points)
        if part.minus:
            nearest = np.where(-own > total, number, nearest)
            total = np.maximum(total, -own)
        else:
            nearest = np.where(own < total, number, nearest)
            total = np.minimum(total, own)
    inside = np.pad((total < 0).reshape(side, side, side), 1)
    core = inside[1:-1, 1:-1, 1:-1]
    hidden = core.copy()
    for shift in (-1, 1):
        for direction in range(3):
            hidden &= np.roll(inside, shift, direction)[1:-1, 1:-1, 1:-1]
    shell = core & ~hidden
    if not shell.any():  # everything was cut away: the first part alone
        return surface(Solid(solid.parts[:1]), side)
    coords = np.argwhere(shell)
    colours = np.array([part.colour for part in solid.parts])[nearest[shell.reshape(-1)]]
    shade = 0.7 + 0.3 * coords[:, 2:] / side
    return coords, (colours * shade).astype(np.uint8)
