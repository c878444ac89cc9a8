"""Captions of the images of a dataset: exact ones of synthetic images, or made from the class and the main colour."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tokbench.data.colours import NAMES, main_colour
from tokbench.data.sources.base import Source
from tokbench.data.sources.synthetic import SyntheticSource
from tokbench.errors import DataError, NotApplicable

CLASS_AND_COLOUR = "class and colour"
"""Name of the rule that makes captions from labels and pixels, in a dataset.toml."""

_COLOUR = ", mostly "


@dataclass(frozen=True)
class Captions:
    """The rule for the captions of a dataset.

    rule: name of the rule, with its version, which results record. of: returns the caption of the image at a position,
    given its decoded file.
    """

    rule: str
    of: Callable[[int, Image.Image], str]


def captions_of(source: Source, rule: str | None, class_names: Path | None) -> Captions | None:
    """Return the captions of a source, or None if it has none.

    rule: the entry `captions` of the dataset.toml. class_names: file with one class name per line, in the order of the
    labels. Raises DataError if the rule is unknown, or if the names are missing or do not fit the labels.
    """
    if isinstance(source, SyntheticSource) and (caption := source.captions()):
        return Captions("exact, version 1", lambda position, image: caption(position))
    if rule is None:
        return None
    if rule != CLASS_AND_COLOUR or class_names is None:
        raise DataError(f"captions = {rule!r}: the known rule is {CLASS_AND_COLOUR!r}, which needs class_names")
    names = _class_names(class_names)
    labels = source.labels()
    if labels is None:  # the files have no labels, as in the official zip of Tiny-ImageNet's validation images
        return None
    if labels and max(labels.values()) >= len(names):
        raise DataError(f"{class_names} lists {len(names)} classes, but there is a label {max(labels.values())}")
    return Captions(f"{CLASS_AND_COLOUR}, version 1", _class_and_colour(source, labels, names))


def class_caption(name: str, pixels: np.ndarray) -> str:
    """Return `a photo of a <class>, mostly <colour>` from a class name and pixels, uint8 (h, w, 3)."""
    article = "an" if name[0] in "aeiou" or name.startswith("hour") else "a"
    return f"a photo of {article} {name}{_COLOUR}{main_colour(pixels)}"


def class_of_caption(caption: str) -> str:
    """Return the part of a caption before the colour: `a photo of a <class>`.

    Raises NotApplicable if the caption was not made by `class_caption`.
    """
    start, found, colour = caption.rpartition(_COLOUR)
    if not found or colour not in NAMES:
        raise NotApplicable(f"the caption '{caption}' does not name the class of its image")
    return start


def class_prompts(start: str) -> list[str]:
    """Return the captions that images of a class can have, one per colour; start: what `class_of_caption` returned."""
    return [f"{start}{_COLOUR}{colour}" for colour in NAMES]


def _class_and_colour(
    source: Source, labels: Mapping[str, int], names: Sequence[str]
) -> Callable[[int, Image.Image], str]:
    def caption(position: int, image: Image.Image) -> str:
        return class_caption(names[labels[source.names[position]]], np.asarray(image))

    return caption


def _class_names(path: Path) -> list[str]:
    try:
        names = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); restore the dataset's folder") from error
    return [name for name in names if name]
