"""SyntheticSource: images that a recipe of tokbench draws, with labels and captions; there are no files."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tokbench.data.annotations import Annotations
from tokbench.data.sources.annotated import AnnotatedSource
from tokbench.data.sources.base import Source
from tokbench.data.synthetic import documents, phantoms, scenes, styled, textured
from tokbench.data.synthetic.raster import Box
from tokbench.errors import DataError
from tokbench.io.hashing import code_of


@dataclass(frozen=True)
class SyntheticRecipe:
    """How the images of a synthetic data set are made.

    side: height and width in pixels. splits: names of the splits. make: returns the description of the image at a
    position of a split, from which `draw` makes pixels, uint8 (side, side, 3), and the others caption, label,
    annotations and the boxes of the objects; None where the images have none. vocabulary: returns all words of
    captions.
    """

    side: int
    splits: tuple[str, ...]
    make: Callable[[Any, int], Any]
    draw: Callable[[Any], np.ndarray]
    caption_of: Callable[[Any], str] | None = None
    label_of: Callable[[Any], int] | None = None
    vocabulary: Callable[[], set[str]] = set
    boxes_of: Callable[[Any], list[Box]] | None = None
    annotations_of: Callable[[Any], Annotations] | None = None


_SCENES = ("train", "test", "heldout")
_LARGE = 128

RECIPES = {
    "scenes": SyntheticRecipe(
        scenes.SIDE, _SCENES, scenes.make_scene, scenes.draw, scenes.caption_of, scenes.label_of, scenes.vocabulary,
        scenes.boxes_of,
    ),
    "phantoms": SyntheticRecipe(
        phantoms.SIDE, ("train", "test"), phantoms.make_phantom, phantoms.draw, phantoms.caption_of, phantoms.label_of,
        phantoms.vocabulary,
    ),
    "scenes-128": SyntheticRecipe(
        _LARGE, _SCENES, scenes.make_scene, partial(scenes.draw, side=_LARGE), scenes.caption_of, scenes.label_of,
        scenes.vocabulary, partial(scenes.boxes_of, side=_LARGE),
    ),
    "textured": SyntheticRecipe(
        textured.SIDE, ("train", "test"), textured.make_textured, textured.draw, textured.caption_of,
        textured.label_of, textured.vocabulary, textured.boxes_of,
    ),
    "styled": SyntheticRecipe(
        styled.SIDE, ("train", "test"), styled.make_styled, styled.draw, styled.caption_of, styled.label_of,
        styled.vocabulary,
    ),
    "documents": SyntheticRecipe(
        documents.SIDE, ("test",), documents.make_page, documents.draw, annotations_of=documents.annotations_of
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

    def captions(self) -> Callable[[int], str] | None:
        """Return the function from a position to the caption, or None if the images have none."""
        caption_of = self.recipe.caption_of
        return None if caption_of is None else lambda position: caption_of(self.describe(position))

    def labels(self) -> dict[str, int] | None:
        label_of = self.recipe.label_of
        if label_of is None:
            return None
        return {name: label_of(self.describe(position)) for position, name in enumerate(self.names)}

    def boxes(self, position: int) -> list[Box]:
        """Return the boxes of the objects of an image; none if the recipe has no boxes."""
        return self.recipe.boxes_of(self.describe(position)) if self.recipe.boxes_of else []

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


def open_recipe(recipe: str, split: str, count: int) -> Source:
    """Return the first `count` images of a split of a recipe, with their annotations, if it has any.

    Raises DataError if there is no such recipe or split, or if the recipe needs a package that is not installed.
    """
    source = SyntheticSource(recipe, split, count)
    if (annotations_of := source.recipe.annotations_of) is None:
        return source
    return AnnotatedSource(
        source, {name: annotations_of(source.describe(position)) for position, name in enumerate(source.names)}
    )
