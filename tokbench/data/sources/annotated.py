"""Images together with what is known of their words and faces."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from tokbench.data.annotations import Annotations, parse
from tokbench.data.sources.base import Source
from tokbench.data.sources.folder import Folder
from tokbench.data.sources.tokbench import MAX_BYTES, read_layout
from tokbench.errors import DataError, UnreadableImage


class AnnotatedSource(Source):
    """Another source's images with annotations, found by name.

    `sizes` gives the width and height that boxes were made for, where the images' pixels are not checked otherwise: an
    image of another size would have its boxes elsewhere, and is a bad image. Raises DataError where an image that is
    annotated is not in the source.
    """

    def __init__(
        self,
        source: Source,
        found: Mapping[str, Annotations],
        sizes: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        present = set(source.names)
        if missing := [name for name in found if name not in present]:
            raise DataError(
                f"{len(missing):,} images are annotated and not here, the first of them {missing[0]}; "
                "restore the data set, or its annotations"
            )
        self._source, self._found, self._sizes = source, found, sizes or {}
        self.names, self.passed = source.names, source.passed

    def annotations(self, position: int) -> Annotations | None:
        """What is known of an image; None where nobody has looked, unlike `Annotations()`, which says: no words."""
        return self._found.get(self.names[position])

    def read(self, position: int) -> bytes:
        return self._source.read(position)

    def open(self, position: int) -> Image.Image:
        image = self._source.open(position)
        stated = self._sizes.get(self.names[position], image.size)
        if image.size != stated:
            raise UnreadableImage(
                f"{self.names[position]}: {image.width}x{image.height} pixels, and its annotations are for "
                f"{stated[0]}x{stated[1]}; restore the original image"
            )
        return image

    def size(self, position: int) -> tuple[int, int]:
        return self._source.size(position)

    def class_list(self, folder: str) -> bytes | None:
        return self._source.class_list(folder)

    def listing(self) -> list[tuple[str, int]]:
        return self._source.listing() + [(known.digest(), 0) for _, known in sorted(self._found.items())]

    def reorder(self, positions: Sequence[int]) -> None:
        self._source.reorder(positions)
        self.names = self._source.names


def annotate(source: Source, path: Path) -> AnnotatedSource:
    """A source whose annotations lie in a file of JSON lines. Raises DataError."""
    return AnnotatedSource(source, read_annotations(path))


def open_layout(root: Path, part: str, follow_links: bool = False) -> AnnotatedSource:
    """A part of a folder in TokBench's layout (`tokbench.data.sources.tokbench`): its annotated images, in their order
    there.

    Raises DataError.
    """
    layout = read_layout(root, part)
    images = Folder(layout.images, follow_links)
    at = {name: position for position, name in enumerate(images.names)}
    images.reorder([at[name] for name in layout.names if name in at])
    return AnnotatedSource(images, layout.found, layout.sizes)


def read_annotations(path: Path) -> dict[str, Annotations]:
    """By image name, from lines {"name": ..., "words": [...], "faces": [...]}. Raises DataError naming the fault."""
    try:
        if (count := path.stat().st_size) > MAX_BYTES:
            raise DataError(f"{path} has {count:,} bytes, over the limit of {MAX_BYTES:,} for annotations")
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); restore the data set") from error
    found: dict[str, Annotations] = {}
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        where = f"{path}, line {number}"
        entry = parse(line, where)
        name = entry.pop("name", None) if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise DataError(f"{where} must be an object with the name of an image")
        if name in found:
            raise DataError(f"{where}: {name!r} is annotated twice")
        found[name] = Annotations.from_plain(entry, f"{path}: {name}")
    return found


def annotation_lines(found: Iterable[tuple[str, Annotations]]) -> str:
    """What `read_annotations` reads."""
    return "".join(f'{{"name":{json.dumps(name)},{known.to_json()[1:]}\n' for name, known in found)
