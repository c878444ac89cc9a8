"""Reads the annotation files of the official TokBench data (https://huggingface.co/datasets/Junfeng5/TokBench).

annotations/text_<set>.json    [{file_name, width, height, annotations: [{rec, bbox, ratio}]}]
images/text_data/<set>/        the images of that set
annotations/face_meta.json     [{image_name, img_width, img_height, faces: [{box, kps, ratio, gt}]}]
images/face_data/wflw/         the images with faces; images/face_data/ if there is no folder `wflw`

boxes     x1, y1, x2, y2 in pixels of the image file. TokBench crops words by slicing an array, which clips boxes at the
          right and lower edge; here boxes are clipped at all edges. A box without area, or completely outside the
          image, is refused: TokBench's slice would be empty and its evaluation would fail.
points    are used unchanged, even if they are outside the image, because face recognisers align faces by them.
ratios    are used unchanged; they refer to the boxes before clipping.
gt        is an identity if it is text.
words     without text are left out and counted.
entries   of one image are merged. Fields that are not listed above are ignored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from reprlib import repr as shortened
from typing import Any

from tokbench.data.annotations import Annotations, Box, Face, Word, box_of, parse, points_of, ratio_from, text_of
from tokbench.data.sources.base import printable_name
from tokbench.errors import DataError

MAX_BYTES = 1 << 26
"""Limit on the bytes of a JSON file, 64 MiB, which bounds the memory for parsing. The largest official one has
1.5 MB."""

MAX_SIDE = 1 << 20
"""Limit on the stated width and height of an image, in pixels."""

_GET = "copy the dataset again"
_MEND = "correct or remove that entry"


@dataclass
class Layout:
    """The annotated images of one part.

    images: folder that contains the images. annotations: annotations by image name, a path below that folder, in the
    order of the JSON files. sizes: width and height of the images for which the annotations were made. wordless: number
    of words that were left out because they have no text. clipped: number of boxes that were partly outside.
    """

    images: Path
    annotations: dict[str, Annotations] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    wordless: int = 0
    clipped: int = 0

    @property
    def names(self) -> list[str]:
        """Names of the annotated images."""
        return list(self.annotations)


def read_layout(root: Path, part: str) -> Layout:
    """Read the annotations of one part: `text` (all sets), `text/<set>` (one set) or `faces`. No image is opened.

    Raises DataError, naming file, image and remedy, if anything is missing, malformed or outside its image.
    """
    kind, _, chosen = part.partition("/")
    if kind == "faces" and not chosen:
        base = root / "images" / "face_data"
        layout = Layout(base / "wflw" if (base / "wflw").is_dir() else base)
        _read(layout, root / "annotations" / "face_meta.json", "", _FACES)
    elif kind == "text" and re.fullmatch(r"[A-Za-z0-9_-]{1,100}|", chosen, re.ASCII):
        layout = Layout(root / "images" / "text_data")
        files = [root / "annotations" / f"text_{chosen}.json"] if chosen else _text_files(root)
        for file in files:
            _read(layout, file, f"{file.stem.removeprefix('text_')}/", _WORDS)
    else:
        raise DataError(f"no part {part!r} in TokBench's layout; the parts are text, text/<set> and faces")
    return layout


def _text_files(root: Path) -> list[Path]:
    files = sorted((root / "annotations").glob("text_*.json"))
    if not files:
        raise DataError(f"{root}/annotations contains no text_<set>.json; {_GET}")
    return files


@dataclass(frozen=True)
class _Keys:
    """The names of the fields of an image's entry, and the function that reads one item of its list."""

    name: str
    width: str
    height: str
    items: str
    read: Callable[[dict[str, Any], str, Layout, tuple[int, int]], Word | Face | None]


def _read(layout: Layout, file: Path, prefix: str, keys: _Keys) -> None:
    entries = parse(_text(file), str(file))
    if not isinstance(entries, list):
        raise DataError(f"{file} must hold a list of images, not {shortened(entries)}; {_GET}")
    for number, entry in enumerate(entries):
        name = _name(_field(entry, keys.name, f"{file}: entry {number}"), f"{file}: entry {number}")
        where = f"{file}: {printable_name(name)}"
        name = prefix + name
        size = (
            _side(_field(entry, keys.width, where), f"{where}: {keys.width}"),
            _side(_field(entry, keys.height, where), f"{where}: {keys.height}"),
        )
        if layout.sizes.setdefault(printable_name(name), size) != size:
            raise DataError(f"{where} has entries with different sizes; {_MEND}")
        if not os.path.isfile(layout.images / name):
            raise DataError(f"{where} is annotated, but {layout.images / printable_name(name)} is missing; {_GET}")
        items = _field(entry, keys.items, where)
        if not isinstance(items, list):
            raise DataError(f"{where}: {keys.items} must be a list, not {shortened(items)}; {_MEND}")
        parsed = [keys.read(item, f"{where}: {keys.items}[{i}]", layout, size) for i, item in enumerate(items)]
        earlier = layout.annotations.get(printable_name(name), Annotations())
        layout.annotations[printable_name(name)] = Annotations(
            earlier.words + tuple(word for word in parsed if isinstance(word, Word)),
            earlier.faces + tuple(face for face in parsed if isinstance(face, Face)),
        )


def _word(item: object, where: str, layout: Layout, size: tuple[int, int]) -> Word | None:
    text = text_of(_field(item, "rec", where), f"{where}.rec")
    if not text.strip():
        layout.wordless += 1
        return None
    box = _clip(box_of(_field(item, "bbox", where), f"{where}.bbox"), size, layout, f"{where}.bbox")
    return Word(text, box, ratio_from(_field(item, "ratio", where), f"{where}.ratio"))


def _face(item: object, where: str, layout: Layout, size: tuple[int, int]) -> Face:
    box = _clip(box_of(_field(item, "box", where), f"{where}.box"), size, layout, f"{where}.box")
    points = points_of(_field(item, "kps", where), f"{where}.kps")
    ratio = ratio_from(_field(item, "ratio", where), f"{where}.ratio")
    identity = item.get("gt") if isinstance(item, dict) else None
    return Face(box, points, ratio, text_of(identity, f"{where}.gt") if isinstance(identity, str) else None)


_WORDS = _Keys("file_name", "width", "height", "annotations", _word)
_FACES = _Keys("image_name", "img_width", "img_height", "faces", _face)


def _clip(box: Box, size: tuple[int, int], layout: Layout, where: str) -> Box:
    width, height = size
    if box[0] >= box[2] or box[1] >= box[3]:
        raise DataError(f"{where} {list(box)} has no area; {_MEND}")
    clipped = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height)))
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        raise DataError(f"{where} {list(box)} is outside its {width}x{height} image; {_MEND}")
    layout.clipped += clipped != box
    return clipped


def _text(file: Path) -> str:
    try:
        if (count := file.stat().st_size) > MAX_BYTES:
            raise DataError(f"{file} has {count:,} bytes, over the limit of {MAX_BYTES:,} for annotations; {_GET}")
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(f"{file} is missing; {_GET}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read ({error}); {_GET}") from error


def _field(entry: object, key: str, where: str) -> Any:
    if not isinstance(entry, dict) or key not in entry:
        raise DataError(f"{where} must be an object with a field {key}, not {shortened(entry)}; {_MEND}")
    return entry[key]


def _name(value: object, where: str) -> str:
    """Return a normalised relative path that stays inside its folder. Raises DataError for other values."""
    name = text_of(value, f"{where}'s name")
    path = PurePosixPath(name)
    normalised = path.parts and path.as_posix() == name and not re.search(r"[\\\0]|^[A-Za-z]:", name)
    too_long = len(name) > 1000 or any(len(part) > 250 for part in path.parts)
    if not normalised or path.is_absolute() or ".." in path.parts or too_long:
        raise DataError(f"{where}: {shortened(name)} is not a path below the folder of images; {_MEND}")
    return name


def _side(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_SIDE:
        raise DataError(f"{where} must be a number of pixels, not {shortened(value)}; {_MEND}")
    return value
