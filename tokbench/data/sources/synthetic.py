"""SyntheticSource: images that a recipe of tokbench draws, with labels and captions; there are no files."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tokbench.data.sources.base import Source
from tokbench.data.synthetic import phantoms, scenes, styled
from tokbench.errors import DataError
from tokbench.io.hashing import code_of


@dataclass(frozen=True)
class SyntheticRecipe:
    """How the images of a synthetic data set are made.

    side: height and width in pixels. splits: names of the splits. make: returns the description of the image at a
    position of a split, from which `draw` makes pixels, uint8 (side, side, 3), and the others caption and label.
    vocabulary: returns all words of captions.
    """

    side: int
    splits: tuple[str, ...]
    make: Callable[[Any, int], Any]
    draw: Callable[[Any], np.ndarray]
    caption_of: Callable[[Any], str]
    label_of: Callable[[Any], int]
    vocabulary: Callable[[], set[str]]


RECIPES = {
    "scenes": SyntheticRecipe(
        scenes.SIDE, ("train", "test", "heldout"), scenes.make_scene, scenes.draw, scenes.caption_of, scenes.label_of,
        scenes.vocabulary,
    ),
    "phantoms": SyntheticRecipe(
        phantoms.SIDE, ("train", "test"), phantoms.make_phantom, phantoms.draw, phantoms.caption_of, phantoms.label_of,
        phantoms.vocabulary,
    ),
    "styled": SyntheticRecipe(
        styled.SIDE, ("train", "test"), styled.make_styled, styled.draw, styled.caption_of, styled.label_of,
        styled.vocabulary,
    ),
}  # fmt: skip


class SyntheticSource(Source):
    """The first `count` images of a split of a recipe, drawn when they are read.

    The constructor raises DataError if there is no such recipe or split.
    """

    def __init__(self, recipe: str, split: str, count: int) -> None:
        if recipe not in RECIPES:
            raise DataError(f"no recipe {recipe!r} of synthetic images; there are: {', '.join(RECIPES)}")
        self.recipe, self._name, self._split = RECIPES[recipe], recipe, split
        if split not in self.recipe.splits:
            raise DataError(f"recipe {recipe} has no split {split!r}; there are: {', '.join(self.recipe.splits)}")
        self.names = [f"{split}/{position:06d}.png" for position in range(count)]

    def describe(self, position: int) -> Any:
        """Return the description of an image, such as a `Scene`."""
        return self.recipe.make(self._split, self._at(position))

    def caption(self, position: int) -> str:
        """Return the caption of an image."""
        return self.recipe.caption_of(self.describe(position))

    def labels(self) -> dict[str, int]:
        return {name: self.recipe.label_of(self.describe(position)) for position, name in enumerate(self.names)}

    def open(self, position: int) -> Image.Image:
        return Image.fromarray(self.recipe.draw(self.describe(position)))

    def read(self, position: int) -> bytes:
        """Return the image as a PNG file."""
        file = io.BytesIO()
        self.open(position).save(file, "PNG")
        return file.getvalue()

    def size(self, position: int) -> tuple[int, int]:
        return self.recipe.side, self.recipe.side

    def listing(self) -> list[tuple[str, int]]:
        code = code_of(*sorted(Path(scenes.__file__).parent.glob("*.py")))
        return [(f"{self._name}/{self._split}/{code}", len(self.names))]
