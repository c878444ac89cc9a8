"""Image sources with annotations of words and faces."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from tokbench.data.annotations import Annotations, parse
from tokbench.data.reading import DEFAULTS, ReadOptions
from tokbench.data.sources.base import Source
from tokbench.data.sources.folder import Folder
from tokbench.data.sources.tokbench import MAX_BYTES, read_layout
from tokbench.errors import DataError, UnreadableImage


class AnnotatedSource(Source):
    """A source whose images have annotations, looked up by name.

    sizes: width and height of the images for which the boxes were made, if the pixels are not checked otherwise.
    Opening an image of another size raises UnreadableImage, because its boxes would be misplaced. The constructor
    raises DataError if an annotated image is not in the source.
    """

    def __init__(
        self,
        source: Source,
        annotations: Mapping[str, Annotations],
        sizes: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        present = set(source.names)
        if missing := [name for name in annotations if name not in present]:
            raise DataError(
                f"{len(missing):,} annotated images are missing, the first of them {missing[0]}; "
                "restore the dataset or its annotations"
            )
        self._source, self._annotations, self._sizes = source, annotations, sizes or {}
        self.names, self.left_out_names = source.names, source.left_out_names

    def annotations(self, position: int) -> Annotations | None:
        """Return the annotations of an image; None if it is not annotated.

        `Annotations()` in contrast means that the image was annotated and contains no words and faces.
        """
        return self._annotations.get(self.names[position])

    def read(self, position: int) -> bytes:
        return self._source.read(position)

    def open(self, position: int) -> Image.Image:
        image = self._source.open(position)
        stated = self._sizes.get(self.names[position], image.size)
        if image.size != stated:
            raise UnreadableImage(
                f"{self.names[position]}: {image.width}x{image.height} pixels, but its annotations are for "
                f"{stated[0]}x{stated[1]}; restore the original image"
            )
        return image

    def size(self, position: int) -> tuple[int, int]:
        return self._source.size(position)

    def class_list(self, folder: str) -> bytes | None:
        return self._source.class_list(folder)

    def listing(self) -> list[tuple[str, int]]:
        digests = [(annotations.digest(), 0) for _, annotations in sorted(self._annotations.items())]
        return self._source.listing() + digests

    def reorder(self, positions: Sequence[int]) -> None:
        self._source.reorder(positions)
        self.names = self._source.names


def annotate(source: Source, path: Path) -> AnnotatedSource:
    """Return the source with the annotations in a file of JSON lines. Raises DataError if the file is invalid."""
    return AnnotatedSource(source, read_annotations(path))


def open_layout(root: Path, part: str, reading: ReadOptions = DEFAULTS) -> AnnotatedSource:
    """Return the annotated images of one part of a folder in TokBench's layout, in the order of its annotation files.

    part: see `tokbench.data.sources.tokbench.read_layout`. Raises DataError if the folder is invalid.
    """
    layout = read_layout(root, part)
    images = Folder(layout.images, reading.follow_links)
    positions = {name: position for position, name in enumerate(images.names)}
    images.reorder([positions[name] for name in layout.names if name in positions])
    return AnnotatedSource(images, layout.annotations, layout.sizes)


def read_annotations(path: Path) -> dict[str, Annotations]:
    """Return the annotations by image name, from lines {"name": ..., "words": [...], "faces": [...]}.

    Raises DataError, naming the line, if the file cannot be read or is invalid.
    """
    try:
        if (count := path.stat().st_size) > MAX_BYTES:
            raise DataError(f"{path} has {count:,} bytes, over the limit of {MAX_BYTES:,} for annotations")
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); restore the dataset") from error
    annotations: dict[str, Annotations] = {}
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        where = f"{path}, line {number}"
        entry = parse(line, where)
        name = entry.pop("name", None) if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise DataError(f"{where} must be an object with the name of an image")
        if name in annotations:
            raise DataError(f"{where}: {name!r} is annotated twice")
        annotations[name] = Annotations.from_plain(entry, f"{path}: {name}")
    return annotations


def annotation_lines(annotations: Iterable[tuple[str, Annotations]]) -> str:
    """Return the file content that `read_annotations` reads, from pairs (image name, annotations)."""
    return "".join(f'{{"name":{json.dumps(name)},{item.to_json()[1:]}\n' for name, item in annotations)
