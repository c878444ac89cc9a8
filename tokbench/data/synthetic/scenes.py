"""Scenes of shapes, colours, relations, counts and short words, with exact captions; position and split give the scene.

A scene has one of four kinds: a large object beside a small one, two to five small objects that are alike, a word above
or below a large object, or a large object alone. All facts in the caption follow from `Scene`, which also holds what
questions about it need: shape, colour, size and place of each object, relations, words and the background.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tokbench.data.synthetic.glyphs import bitmap
from tokbench.data.synthetic.raster import Box, Draws, Inside, add_shape, to_pixels

SIDE = 64
"""Height and width of the images in pixels."""

Split = Literal["train", "test", "heldout"]
Relation = Literal["left of", "right of", "above", "below"]

SHAPES: dict[str, Inside] = {
    "circle": lambda u, v: u * u + v * v <= 1,
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) <= 0.85,
    "triangle": lambda u, v: (v <= 0.8) & (np.abs(u) <= (v + 1) * 0.55),
    "diamond": lambda u, v: np.abs(u) + np.abs(v) <= 1,
    "cross": lambda u, v: (np.minimum(np.abs(u), np.abs(v)) <= 0.33) & (np.maximum(np.abs(u), np.abs(v)) <= 1),
    "ring": lambda u, v: (u * u + v * v <= 1) & (u * u + v * v >= 0.3),
}
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 210),
    "yellow": (240, 220, 40),
    "purple": (130, 50, 160),
    "orange": (240, 130, 30),
    "cyan": (50, 190, 205),
    "pink": (240, 140, 185),
}
BACKGROUNDS = {"white": 232, "grey": 128, "black": 24}
"""Grey level of each background at its centre."""

WORDS = ("sun", "cat", "dog", "map", "car", "box", "key", "cup", "hat", "bus", "tea", "egg")
COUNTS = {2: "two", 3: "three", 4: "four", 5: "five"}
RELATIONS: dict[Relation, tuple[int, int]] = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
"""The direction (x, y) from the second object to the first one."""

HELD_OUT = frozenset((shape, list(COLOURS)[(place + 3) % len(COLOURS)]) for place, shape in enumerate(SHAPES))
"""Six pairs of shape and colour that no scene of the splits `train` and `test` contains."""

_PAIRS = [(shape, colour) for shape in SHAPES for colour in COLOURS]

CLASSES = tuple(f"{colour} {shape}" for shape, colour in _PAIRS)
"""The classes of a scene, in the order of the labels: colour and shape of its main object."""

_TINT, _SLOPE = 12, 8
"""Largest change of a colour's levels, and of the background's level towards an edge of the image."""


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    shape: a key of SHAPES, or `word`. colour: a key of COLOURS; for a word `black` or `white`. size: `large` or
    `small`; empty for a word. x, y: its centre in shares of the side, from the left and from the top. radius: half its
    height, in the same unit. rgb: the levels that are drawn. text: the word.
    """

    shape: str
    colour: str
    size: Literal["large", "small", ""]
    x: float
    y: float
    radius: float
    rgb: tuple[int, int, int]
    text: str = ""

    @property
    def phrase(self) -> str:
        """The object in words: `a large red circle`, `the word sun`."""
        return f"the word {self.text}" if self.text else f"a {self.size} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """One scene. The main object comes first: the large one, or one of several that are alike.

    background: a key of BACKGROUNDS. slope: change of the background's level towards the right and the lower edge.
    """

    objects: tuple[SceneObject, ...]
    background: str
    slope: tuple[float, float]

    @property
    def main(self) -> SceneObject:
        """The object whose shape and colour are the class of the scene."""
        return self.objects[0]

    @property
    def alike(self) -> bool:
        """Whether it has several objects of one shape and colour."""
        return len({(one.shape, one.colour) for one in self.objects}) < len(self.objects)

    def relation(self, first: int, second: int) -> Relation:
        """Return where the object at position `first` lies relative to the one at `second`."""
        one, other = self.objects[first], self.objects[second]
        x, y = one.x - other.x, one.y - other.y
        if abs(x) > abs(y):
            return "left of" if x < 0 else "right of"
        return "above" if y < 0 else "below"


def make_scene(split: Split, position: int) -> Scene:
    """Return the scene at a position of a split. The same arguments always give the same scene."""
    draws = Draws(f"tokbench scenes 1/{split}/{position}")
    pairs = [pair for pair in _PAIRS if (pair in HELD_OUT) is (split == "heldout")]
    others = [pair for pair in _PAIRS if pair not in HELD_OUT]
    pair = draws.one_of(pairs)
    background = draws.one_of(list(BACKGROUNDS))
    slope = draws.between(-_SLOPE, _SLOPE), draws.between(-_SLOPE, _SLOPE)
    kind = draws.below(10)
    if kind < 5:
        objects = _related(draws, pair, draws.one_of([other for other in others if other != pair]))
    elif kind < 7:
        objects = _several(draws, pair)
    elif kind < 9:
        objects = _with_word(draws, pair, "white" if background == "black" else "black")
    else:
        objects = [_made(draws, pair, "large", draws.between(0.4, 0.6), draws.between(0.4, 0.6))]
    return Scene(tuple(objects), background, slope)


def _made(draws: Draws, pair: tuple[str, str], size: Literal["large", "small"], x: float, y: float) -> SceneObject:
    shape, colour = pair
    radius = draws.between(0.17, 0.21) if size == "large" else draws.between(0.09, 0.12)
    red, green, blue = (min(255, max(0, level + round(draws.between(-_TINT, _TINT)))) for level in COLOURS[colour])
    return SceneObject(shape, colour, size, x, y, radius, (red, green, blue))


def _related(draws: Draws, main: tuple[str, str], other: tuple[str, str]) -> list[SceneObject]:
    direction = draws.one_of(list(RELATIONS.values()))
    gap, across = draws.between(0.36, 0.44), draws.between(-0.08, 0.08)
    centre = draws.between(0.46, 0.54), draws.between(0.46, 0.54)
    places = []
    for sign in (1, -1):
        x = centre[0] + sign / 2 * (direction[0] * gap + direction[1] * across)
        y = centre[1] + sign / 2 * (direction[1] * gap + direction[0] * across)
        places.append((x, y))
    return [_made(draws, main, "large", *places[0]), _made(draws, other, "small", *places[1])]


def _several(draws: Draws, pair: tuple[str, str]) -> list[SceneObject]:
    places = draws.some_of([(column, row) for row in range(3) for column in range(3)], 2 + draws.below(4))
    return [
        _made(
            draws,
            pair,
            "small",
            0.2 + 0.3 * column + draws.between(-0.02, 0.02),
            0.2 + 0.3 * row + draws.between(-0.02, 0.02),
        )
        for column, row in places
    ]


def _with_word(draws: Draws, pair: tuple[str, str], ink: str) -> list[SceneObject]:
    text, below = draws.one_of(WORDS), draws.below(2)
    y, y_word = (0.3, 0.8) if below else (0.7, 0.2)
    level = 250 if ink == "white" else 8
    main = _made(draws, pair, "large", draws.between(0.35, 0.65), y + draws.between(-0.03, 0.03))
    height = 7 / SIDE
    x_word = draws.between(0.4, 0.6)
    return [main, SceneObject("word", ink, "", x_word, y_word, height, (level, level, level), text)]


def caption_of(scene: Scene) -> str:
    """Return the exact caption: `a large red circle left of a small blue square on a white background`."""
    where = f"on a {scene.background} background"
    if scene.alike:
        return f"{COUNTS[len(scene.objects)]} {scene.main.size} {scene.main.colour} {plural(scene.main.shape)} {where}"
    if len(scene.objects) == 1:
        return f"{scene.main.phrase} {where}"
    first, second = (1, 0) if scene.objects[1].text else (0, 1)
    parts = scene.objects[first].phrase, scene.relation(first, second), scene.objects[second].phrase
    return " ".join((*parts, where))


def plural(shape: str) -> str:
    """Return the plural of a shape's name."""
    return f"{shape}es" if shape == "cross" else f"{shape}s"


def label_of(scene: Scene) -> int:
    """Return the label of a scene, a position in CLASSES."""
    return _PAIRS.index((scene.main.shape, scene.main.colour))


def draw(scene: Scene, side: int = SIDE) -> np.ndarray:
    """Return the pixels of a scene, uint8 (side, side, 3). side: a multiple of 32."""
    line = (np.arange(side) + 0.5) / side * 2 - 1
    level = BACKGROUNDS[scene.background] + scene.slope[0] * line[None, :] + scene.slope[1] * line[:, None]
    canvas = np.repeat(level[:, :, None], 3, axis=2)
    for one in scene.objects:
        if one.text:
            _draw_word(canvas, one)
        else:
            add_shape(canvas, SHAPES[one.shape], (one.x, one.y), (one.radius, one.radius), np.array(one.rgb, float))
    return to_pixels(canvas)


def _draw_word(canvas: np.ndarray, word: SceneObject) -> None:
    """Draw a word whose letters have 10x14 pixels at 64 px, moved into the image where it would leave it."""
    dots, top, left = _placed_word(word, len(canvas))
    canvas[top : top + dots.shape[0], left : left + dots.shape[1]][dots] = word.rgb


def _placed_word(word: SceneObject, side: int) -> tuple[np.ndarray, int, int]:
    """Return the pixels of a word, bool (h, w), and the row and the column of the first one."""
    scale = side // 32
    dots = bitmap(word.text).repeat(scale, axis=0).repeat(scale, axis=1)
    top, left = (
        min(max(int(middle * side - length / 2), 1), side - 1 - length)
        for middle, length in zip((word.y, word.x), dots.shape, strict=True)
    )
    return dots, top, left


BOX_CLASSES = (*SHAPES, "word")
"""The classes of the boxes of `boxes_of`."""

_REACH = {"square": (0.85, 0.85, 0.85, 0.85), "triangle": (0.99, 1.0, 0.99, 0.8)}
"""How far a shape reaches to the left, top, right and bottom, in units of its radius, where that is not 1."""


def boxes_of(scene: Scene, side: int = SIDE) -> list[Box]:
    """Return the boxes of all objects, each (class, left, top, right, bottom), in the order of the objects.

    The class is a position in BOX_CLASSES; edges are in shares of the side.
    """
    boxes: list[Box] = []
    for one in scene.objects:
        if one.text:
            dots, top, left = _placed_word(one, side)
            rows, columns = (np.flatnonzero(dots.any(axis)) for axis in (1, 0))
            pixels = left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1
            edges = [float(edge) / side for edge in pixels]
        else:
            reach = [share * one.radius for share in _REACH.get(one.shape, (1.0, 1.0, 1.0, 1.0))]
            edges = [one.x - reach[0], one.y - reach[1], one.x + reach[2], one.y + reach[3]]
        left_edge, top_edge, right, bottom = (min(max(edge, 0.0), 1.0) for edge in edges)
        boxes.append((BOX_CLASSES.index(one.shape), left_edge, top_edge, right, bottom))
    return boxes


def vocabulary() -> set[str]:
    """Return all words that captions can contain."""
    shapes = [*SHAPES, *map(plural, SHAPES)]
    fixed = "a the word on background large small left right of above below"
    return {*shapes, *COLOURS, *BACKGROUNDS, *WORDS, *COUNTS.values(), *fixed.split()}
