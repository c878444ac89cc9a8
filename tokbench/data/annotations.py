"""Ground-truth annotations of the words and faces in an image, in pixels of the image file.

A *ratio* is TokBench's relative size of a word or face, which determines whether it is small, medium or large. Scaling
the image does not change it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from reprlib import repr as shortened
from typing import Any

from tokbench.errors import DataError
from tokbench.io.json import loads_strict

Box = tuple[float, float, float, float]
"""A box (x1, y1, x2, y2) in pixels; x2 and y2 are exclusive, as in Pillow's crop."""

Points = tuple[tuple[float, float], ...]
"""Five points (x, y) in pixels in MTCNN's order: left and right eye, nose tip, left and right corner of the mouth, as
seen by the viewer."""


@dataclass(frozen=True)
class Word:
    """A word: its text, its box, and its ratio (pixels per character / longer side of the image)."""

    text: str
    box: Box
    ratio: float


@dataclass(frozen=True)
class Face:
    """A face: its box, its five points and its ratio. identity: name shared by all faces of one person, or None."""

    box: Box
    points: Points
    ratio: float
    identity: str | None = None


@dataclass(frozen=True)
class Annotations:
    """The words and the faces of one image."""

    words: tuple[Word, ...] = ()
    faces: tuple[Face, ...] = ()

    def to_json(self) -> str:
        """Return the annotations as one line of JSON. Equal annotations give equal text: 12.0 is written as 12."""
        return json.dumps(_with_ints(asdict(self)), separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_plain(cls, value: object, name: str) -> Annotations:
        """Build annotations from parsed JSON, {"words": [...], "faces": [...]}, where either list may be missing.

        Raises DataError naming the image `name` and the invalid field.
        """
        entry = _object(value, {"words", "faces"}, set(), name)
        return cls(
            tuple(_word(item, f"{name}: words[{i}]") for i, item in enumerate(_list(entry, "words", name))),
            tuple(_face(item, f"{name}: faces[{i}]") for i, item in enumerate(_list(entry, "faces", name))),
        )

    def digest(self) -> str:
        """Return the SHA-256 of `to_json`."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def ratio_of_word(box: Box, text: str, image_size: tuple[int, int]) -> float:
    """Return TokBench's ratio of a word: longer side of the box / number of characters / longer side of the image.

    TokBench's code does not contain this rule. It reproduces the published float64 ratios of 856 words in 120
    ICDAR-2015 photos exactly; 83 of these words have boxes that are higher than wide, and a rule with the width would
    reproduce only the other 773. Spaces count as characters. Raises DataError if the text is empty.
    """
    if not text:
        raise DataError("a word without characters has no pixels per character; leave it out")
    return max(box[2] - box[0], box[3] - box[1]) / len(text) / max(image_size)


def ratio_of_face(box: Box, image_size: tuple[int, int]) -> float:
    """Return TokBench's ratio of a face: longer side of the box / longer side of the image.

    This reproduces the float64 ratios of 69 faces in 64 photos annotated in TokBench's layout exactly. All 69 boxes are
    higher than wide, so a rule with the height would also fit; the longer side is chosen as in the rule for words.
    """
    return max(box[2] - box[0], box[3] - box[1]) / max(image_size)


def reading_order(boxes: Sequence[Sequence[float]]) -> list[int]:
    """Return the positions of boxes (x1, y1, x2, y2) row by row from the top, each row from left to right.

    A box belongs to a row if its centre is less than half a height, that of the lower of the two, below the centre of
    the row's highest box. Columns of text are read across, which is no problem where two readings are compared.
    """
    centres = [(box[1] + box[3]) / 2 for box in boxes]
    rows: list[list[int]] = []
    for place in sorted(range(len(boxes)), key=lambda place: (centres[place], boxes[place][0])):
        if rows:
            first = rows[-1][0]
            height = min(boxes[one][3] - boxes[one][1] for one in (first, place))
            if centres[place] - centres[first] < height / 2:
                rows[-1].append(place)
                continue
        rows.append([place])
    return [place for row in rows for place in sorted(row, key=lambda place: (boxes[place][0], place))]


def parse(text: str, name: str) -> object:
    """Return the parsed JSON value. Raises DataError for invalid JSON, NaN, repeated keys and too deep nesting."""
    try:
        return loads_strict(text)
    except ValueError as error:
        raise DataError(f"{name}: not readable as JSON ({str(error)[:120]}); copy the annotations again") from error


def number(value: object, where: str) -> float:
    """Return a finite number as float; booleans are not numbers. Raises DataError naming `where`."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:  # the int exceeds the range of float
        pass
    raise DataError(f"{where} must be a finite number, not {shortened(value)}")


def box_of(value: object, where: str) -> Box:
    """Return a list of four finite numbers as a box, whatever their order. Raises DataError naming `where`."""
    if not isinstance(value, list) or len(value) != 4:
        raise DataError(f"{where} must be four numbers x1, y1, x2, y2, not {shortened(value)}")
    x1, y1, x2, y2 = (number(edge, where) for edge in value)
    return x1, y1, x2, y2


def points_of(value: object, where: str) -> Points:
    """Return a list of five pairs of finite numbers, not all equal, as points. Raises DataError naming `where`."""
    if (
        not isinstance(value, list)
        or len(value) != 5
        or not all(isinstance(pair, list) and len(pair) == 2 for pair in value)
    ):
        raise DataError(f"{where} must be five pairs x, y, not {shortened(value)}")
    points = tuple((number(x, where), number(y, where)) for x, y in value)
    if len(set(points)) == 1:
        raise DataError(f"{where} are all equal to {list(points[0])}, so the face cannot be aligned")
    return points


def ratio_from(value: object, where: str) -> float:
    """Return a finite number above 0. Raises DataError naming `where`."""
    ratio = number(value, where)
    if ratio <= 0:
        raise DataError(f"{where} must be above 0, not {shortened(value)}")
    return ratio


def text_of(value: object, where: str) -> str:
    """Return a string, possibly empty, that can be encoded as UTF-8. Raises DataError naming `where`."""
    if not isinstance(value, str):
        raise DataError(f"{where} must be text, not {shortened(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where} contains half a character (a lone surrogate)") from error
    return value


def _word(value: object, where: str) -> Word:
    entry = _object(value, {"text", "box", "ratio"}, {"text", "box", "ratio"}, where)
    text = text_of(entry["text"], f"{where}.text")
    if not text:
        raise DataError(f"{where}.text is empty")
    return Word(text, _area(box_of(entry["box"], f"{where}.box"), where), ratio_from(entry["ratio"], f"{where}.ratio"))


def _face(value: object, where: str) -> Face:
    entry = _object(value, {"box", "points", "ratio", "identity"}, {"box", "points", "ratio"}, where)
    identity = entry.get("identity")
    return Face(
        _area(box_of(entry["box"], f"{where}.box"), where),
        points_of(entry["points"], f"{where}.points"),
        ratio_from(entry["ratio"], f"{where}.ratio"),
        None if identity is None else text_of(identity, f"{where}.identity"),
    )


def _area(box: Box, where: str) -> Box:
    if box[0] >= box[2] or box[1] >= box[3]:
        raise DataError(f"{where}.box has no area: {list(box)}")
    return box


def _object(value: object, known: set[str], needed: set[str], where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where} must be an object, not {shortened(value)}")
    if unknown := set(value) - known:
        raise DataError(f"{where} has an unknown field {shortened(min(unknown))}; known are {', '.join(sorted(known))}")
    if missing := needed - set(value):
        raise DataError(f"{where} lacks {', '.join(sorted(missing))}")
    return value


def _list(entry: Mapping[str, object], key: str, name: str) -> list[object]:
    value = entry.get(key, [])
    if not isinstance(value, list):
        raise DataError(f"{name}: {key} must be a list, not {shortened(value)}")
    return value


def _with_ints(value: object) -> object:
    """Return the value with integral floats replaced by ints, recursively."""
    if isinstance(value, dict):
        return {key: _with_ints(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_ints(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
