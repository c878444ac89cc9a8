"""Dataset: named or by path, read in a fixed order, prepared as the protocol says, hashed as it goes."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tokbench.data.annotations import Annotations
from tokbench.data.dataset_folder import describe, locate, places
from tokbench.data.loader import ImageLoader, PreparedImage
from tokbench.data.preprocess import as_they_are, check_library, prepare, refuse_unstorable
from tokbench.data.sources.annotated import AnnotatedSource, annotate, open_layout
from tokbench.data.sources.base import Source
from tokbench.data.sources.manifest import Manifest
from tokbench.data.sources.open import folder_of, is_path, open_source, open_sources, sort_by
from tokbench.data.splits import known
from tokbench.data.stream import AnnotatedImage, Bindable, ImageStream, ReadLog, Share, StreamSummary, all_spans, spans
from tokbench.errors import DataError, TokbenchError, UnreadableImage, UsageError
from tokbench.io.left_out import describe_left_out
from tokbench.paths import dataset_folders, slug
from tokbench.protocol.protocol import Protocol


@dataclass
class Dataset(ImageStream):
    """Images in a fixed order under one protocol.

    After (and during) a pass: `bad` lists unreadable images as (name, reason), `enlarged` counts images smaller than
    `size`, `sha256` hashes the digests of all images read, in order.
    """

    name: str
    source: Source
    protocol: Protocol
    size: int | None
    limit: int | None = None
    own_size: int | None = None
    shape: tuple[int, int] | None = None
    seen: ReadLog = field(default_factory=ReadLog, repr=False)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError("--limit must be at least 1")
        if self.size is not None and self.size < 1:
            raise UsageError("--size must be at least 1")
        if not self.source.names:
            left = f"; {describe_left_out(self.left_out)}, which are not read" if self.left_out else ""
            raise DataError(f"{self.name}: no images found{left}")

    def __len__(self) -> int:
        return min(self.limit or len(self.source.names), len(self.source.names))

    @property
    def names(self) -> list[str]:
        """The names of the images that a pass reads."""
        return self.source.names[: len(self)]

    @property
    def available(self) -> int:
        """Images that there are."""
        return len(self.source.names)

    @property
    def left_out(self) -> dict[str, int]:
        """How many files beside the images look like images and are not read, by suffix."""
        return self.source.left_out

    @property
    def limited(self) -> int | None:
        """N, where there are more."""
        return self.limit if self.limit and self.limit < self.available else None

    @property
    def sha256(self) -> str:
        return self.seen.sha256

    @property
    def bad(self) -> list[tuple[str, str]]:
        return [(self.source.names[position], reason) for position, reason in sorted(self.seen.bad.items())]

    @property
    def enlarged(self) -> int:
        return self.seen.enlarged

    def check_sizes(self) -> None:
        """Where no size is given, all images must have one; where the protocol takes images as they are, one of them
        must have the size that is given. Reads headers only, as few as that takes.

        Raises DataError naming two images of unequal sizes, and UsageError where no image has the size.
        """
        if self.size is not None:
            if self.protocol.crop == "none":
                self._check_any_fits(self.size)
            return
        first: tuple[str, tuple[int, int]] | None = None
        for position, name in enumerate(self.names):
            try:
                size = self.source.size(position)
            except UnreadableImage:
                continue  # the pass itself lists it
            if first is None:
                first = (name, size)
            elif size != first[1]:
                remedy = "give --size S to bring them all to S x S"
                if self.protocol.crop == "none":
                    remedy = f"protocol {self.protocol.name} takes images as they are; choose one that crops"
                raise DataError(
                    f"{self.name} holds images of unequal sizes ({first[0]} is {first[1][0]}x{first[1][1]}, "
                    f"{name} is {size[0]}x{size[1]}); {remedy}"
                )

    def _check_any_fits(self, side: int) -> None:
        other: tuple[int, int] | None = None
        for position in range(len(self)):
            try:
                size = self.source.size(position)
            except UnreadableImage:
                continue
            if size == (side, side):
                return
            other = other or size
        if other is not None:
            raise UsageError(as_they_are(self.protocol, other, side))

    @property
    def side(self) -> int | None:
        return self.size

    @property
    def unpaired(self) -> None:
        return None

    def batches(self, batch_size: int, share: Share = all_spans) -> ImageLoader:
        """The images of `batch_size` positions at a time, without those that are unreadable, which go to `bad`.

        `share` chooses among the spans of positions, for a process that reads only some.
        """
        self.shape, self.seen = None, ReadLog()
        return ImageLoader(self, spans(len(self), batch_size, share))

    def bind(self, model: Bindable) -> None:
        model.bind_dataset(self.names, self.source.names)

    def refuse_empty(self) -> None:
        if self.shape is None:
            first = self.bad[0][1] if self.bad else "it is empty"
            raise DataError(f"{self.name}: no image could be read ({first})")

    def summary(self) -> StreamSummary:
        return StreamSummary(
            self.sha256,
            len(self) - len(self.bad),
            available=self.available,
            limited=self.limited,
            own_size=self.own_size,
            enlarged=self.enlarged,
            left_out=self.left_out,
            bad=self.bad,
        )

    def prepared(self, position: int) -> PreparedImage:
        """One image as the protocol wants it. Raises BadImage, also for whatever its preparation raises, so that one
        odd image ends no run; what is about all images alike (an absent library) stays a UsageError."""
        name = self.source.names[position]
        try:
            return self._prepared(position)
        except UnreadableImage as error:
            text = str(error)
            raise UnreadableImage(text if text.startswith(f"{name}: ") else f"{name}: {text}") from error
        except TokbenchError:
            raise
        except MemoryError as error:
            raise UnreadableImage(f"{name}: preparing it takes more memory than there is; scale it down") from error
        except Exception as error:  # Pillow's, OpenCV's and torch's errors have no common class
            why = f"{type(error).__name__}: {str(error).strip()[:200]}"
            raise UnreadableImage(
                f"{name}: protocol {self.protocol.name} cannot prepare it ({why}); remove it, or bring it to the size "
                "and shape of the others"
            ) from error

    def _prepared(self, position: int) -> PreparedImage:
        image = self.source.open(position)
        pixels, enlarged = prepare(image, self.size, self.protocol)
        refuse_unstorable(image.size if self.protocol.crop == "pad" else pixels.shape[1::-1], self.protocol)
        original = np.array(image) if self.protocol.reference == "original" else None
        marked = None
        if isinstance(self.source, AnnotatedSource):
            marked = AnnotatedImage(np.asarray(image), self.source.annotations(position) or Annotations())
        digest = hashlib.sha256()
        for part in (pixels, original, marked.pixels if marked else None):
            if part is not None:
                digest.update(repr(part.shape).encode())
                digest.update(np.ascontiguousarray(part).tobytes())
        if marked:
            digest.update(marked.known.to_json().encode())
        return PreparedImage(pixels, original, marked, digest.hexdigest(), enlarged)


def open_dataset(
    data: str,
    protocol: Protocol,
    size: int | None = None,
    limit: int | None = None,
    root: Path | None = None,
    follow_links: bool = False,
    split: str | None = None,
) -> Dataset:
    """The dataset that `data` names (a folder in `datasets/`, a path to images, or a pattern of paths), not yet read.

    `follow_links`: read symbolic links that leave a folder of images, too. `split`: of a path that holds several
    (train, validation, test), the one to read. Raises UsageError for an unknown name or split, DataError where its
    images are not on this machine, do not fit together, or could be several data sets.
    """
    folders = dataset_folders(root)
    if data in folders:
        if split:
            raise UsageError(f"dataset {data} is one split already, as its dataset.toml says; leave --split out")
        dataset = _named(data, folders[data], protocol, size, limit, follow_links)
    elif is_path(data):
        source = open_source(data, follow_links=follow_links, split=split)
        part = f"-{slug(known(split))}" if split else ""
        name = f"{slug(folder_of(data).resolve().name)}{part}-{_fingerprint(source)}"
        dataset = Dataset(name, source, protocol, size, limit, own_size=None)
    else:
        near = difflib.get_close_matches(data, folders, 1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise UsageError(
            f"no dataset or path '{data}'; {hint}datasets here: {', '.join(sorted(folders)) or 'none (give --root)'}"
        )
    if dataset.size is not None:
        check_library(protocol)
    dataset.check_sizes()
    return dataset


def _named(
    name: str, folder: Path, protocol: Protocol, size: int | None, limit: int | None, follow_links: bool
) -> Dataset:
    described = describe(folder)
    stored = described.get("folder", name)
    if manifest := described.get("manifest"):
        source: Source = Manifest(folder / manifest)
    else:
        paths = locate(stored, described)
        if not paths:
            looked = ", ".join(str(place) for place in places(stored))
            raise DataError(
                f"dataset {name} is not on this machine: looked for {' or '.join(described['sources'])} in {looked}; "
                f"{described['get']}"
            )
        if "layout" in described:
            source = open_layout(paths[0].parent, described["part"], follow_links)
        else:
            source = open_sources(paths, follow_links=follow_links)
        if described["order"] != "listed":
            sort_by(source, described["order"])
    if annotations := described.get("annotations"):
        source = annotate(source, folder / annotations)
    count = described.get("count", len(source.names))
    if len(source.names) != count:
        raise DataError(
            f"dataset {name} should hold {count} images and {len(source.names)} are here: an incomplete copy?"
        )
    return Dataset(name, source, protocol, size or described["size"], limit, own_size=described["size"])


def _fingerprint(source: Source) -> str:
    return hashlib.sha256(repr(source.listing()).encode()).hexdigest()[:6]
