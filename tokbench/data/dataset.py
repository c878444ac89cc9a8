"""Dataset: images given by name or path, read in a fixed order, preprocessed by a protocol, and hashed."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tokbench.data.annotations import Annotations
from tokbench.data.captions import Captions, captions_of
from tokbench.data.class_folders import labels_of
from tokbench.data.dataset_folder import describe, locate, search_folders
from tokbench.data.decode import exif_orientation
from tokbench.data.degrade import degrade
from tokbench.data.even_sample import even_sample, fingerprint
from tokbench.data.loader import ImageLoader, PreparedImage, to_bchw
from tokbench.data.preprocess import check_library, prepare, refuse_unstorable, wrong_size_message
from tokbench.data.reading import DEFAULTS, ReadOptions
from tokbench.data.sources.annotated import AnnotatedSource, annotate, open_layout
from tokbench.data.sources.base import Source
from tokbench.data.sources.manifest import Manifest
from tokbench.data.sources.open import open_source, open_sources, sort_by
from tokbench.data.sources.patterns import folder_of, is_path
from tokbench.data.sources.synthetic import open_recipe
from tokbench.data.splits import canonical_split
from tokbench.data.stream import (
    CHUNK,
    AnnotatedImage,
    Bindable,
    ImageStream,
    ReadLog,
    Sampling,
    Share,
    StreamSummary,
    all_spans,
    spans,
)
from tokbench.errors import DataError, NotApplicable, TokbenchError, UnreadableImage, UsageError, did_you_mean
from tokbench.io.left_out import describe_left_out, left_out_remedy
from tokbench.paths import dataset_folders, slug
from tokbench.protocol.degradation import Degradation
from tokbench.protocol.protocol import Protocol
from tokbench.protocol.rounding import from_uint8

_FEW_ODD = 20
"""Without a size, one in this many images may differ in size from the others, and becomes an unreadable image."""

_MIN_COMMON = 3
"""Number of images from which one may differ in size from the others."""

_MIN_HEADERS = 64
"""Number of images after which their sizes are considered different if no size is that of half of them."""


@dataclass
class Dataset(ImageStream):
    """Images in a fixed order under one protocol.

    size: side in pixels that images are brought to; None keeps their own. limit: number of images to read from the
    beginning; None reads all. native_size: side in pixels of the dataset's images, if its dataset.toml states one.
    sampling: `even` if the source was reordered so that its first `limit` images are an even sample of all. shape:
    height and width of the images, known after the first batch. common_size: width and height of almost all images, if
    `size` is None and a few images have another size, which makes them unreadable. captions: the rule for captions, if
    the dataset has any. seen: the log of the current pass, from which `unreadable`, `num_upscaled` and `sha256` are
    computed.

    Raises UsageError if size or limit is below 1, and DataError if the source has no images.
    """

    name: str
    source: Source
    protocol: Protocol
    size: int | None
    limit: int | None = None
    native_size: int | None = None
    sampling: Sampling = "first"
    with_labels: bool = False
    shape: tuple[int, ...] | None = None
    common_size: tuple[int, int] | None = None
    captions: Captions | None = None
    seen: ReadLog = field(default_factory=ReadLog, repr=False)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError("--limit must be at least 1")
        if self.size is not None and self.size < 1:
            raise UsageError("--size must be at least 1")
        if not self.source.names:
            note = f"; it contains {self.source.instead}" if self.source.instead else ""
            if self.left_out:
                note += f"; {describe_left_out(self.left_out)}, which are not read: {left_out_remedy(self.left_out)}"
            raise DataError(f"{self.name}: no images found{note}")

    def __len__(self) -> int:
        return min(self.limit or len(self.source.names), len(self.source.names))

    @property
    def names(self) -> list[str]:
        """Names of the images that a pass reads."""
        return self.source.names[: len(self)]

    @property
    def available(self) -> int:
        """Number of images in the source."""
        return len(self.source.names)

    @property
    def left_out(self) -> dict[str, int]:
        """Number of files that look like images but are not read, by suffix."""
        return self.source.left_out

    @property
    def limited(self) -> int | None:
        """The limit, if the source has more images; else None."""
        return self.limit if self.limit and self.limit < self.available else None

    @property
    def sha256(self) -> str:
        """SHA-256 of the digests of all images read so far, in order."""
        return self.seen.sha256

    @property
    def unreadable(self) -> list[tuple[str, str]]:
        """Name and reason of each image of the current pass that could not be read."""
        return [(self.source.names[position], reason) for position, reason in sorted(self.seen.unreadable.items())]

    @property
    def num_upscaled(self) -> int:
        """Number of images of the current pass that were smaller than `size`."""
        return self.seen.num_upscaled

    @property
    def labels(self) -> dict[str, int] | None:
        """Label of each image by its name; None if `with_labels` is not set or if there are no labels."""
        return self._labels if self.with_labels else None

    @property
    def labels_sha256(self) -> str | None:
        labels = self._labels if self.with_labels or self.captions else None
        return None if labels is None else hashlib.sha256(repr(sorted(labels.items())).encode()).hexdigest()

    @cached_property
    def degradation(self) -> Degradation | None:
        """How the protocol degrades images before a tokenizer gets them, or None."""
        return self.protocol.degradation

    @cached_property
    def _labels(self) -> dict[str, int] | None:
        return labels_of(self.name, self.source)

    def check_sizes(self) -> None:
        """Check that the sizes of the images fit `size` and the protocol. Only as many headers as necessary are read.

        Without `size`, the images must have the same size, except for a few, which become unreadable images: raises
        DataError naming two images with different sizes if there are more. If the protocol does not crop, at least one
        image must have the given size: raises UsageError if none has.
        """
        if self.size is not None:
            if self.protocol.crop == "none":
                self._check_any_fits(self.size)
            return
        counts: Counter[tuple[int, int]] = Counter()
        examples: dict[tuple[int, int], str] = {}
        tolerated = max(len(self) // _FEW_ODD, 1 if len(self) >= _MIN_COMMON else 0)
        for position, name in enumerate(self.names):
            try:
                size = self.source.size(position)
            except UnreadableImage:
                continue  # the pass will list it
            counts[size] += 1
            examples.setdefault(size, name)
            common = max(counts.values())
            if counts.total() - common > tolerated or (counts.total() >= _MIN_HEADERS and 2 * common < counts.total()):
                break
        else:
            if len(counts) > 1:
                self.common_size = counts.most_common(1)[0][0]
            return
        remedy = "give --size S to bring them all to S x S"
        if self.protocol.crop == "none":
            remedy = f"protocol {self.protocol.name} does not resize images; choose one that crops"
        (first, first_name), (other, other_name) = list(examples.items())[:2]
        raise DataError(
            f"{self.name} contains images of unequal sizes ({first_name} is {first[0]}x{first[1]}, {other_name} is "
            f"{other[0]}x{other[1]}); {remedy}"
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
            raise UsageError(wrong_size_message(self.protocol, other, side))

    @property
    def side(self) -> int | None:
        return self.size

    @property
    def unpaired(self) -> None:
        return None

    def batches(self, batch_size: int, share: Share = all_spans) -> ImageLoader:
        """Return an iterator over batches of `batch_size` positions; it begins a new pass and resets `seen`.

        Unreadable images are left out of the batches and listed in `unreadable`. share: selects the spans of positions
        that this process reads.
        """
        self.shape, self.seen = None, ReadLog()
        return ImageLoader(self, spans(len(self), batch_size, share))

    def others(self, count: int) -> ImageLoader:
        """Return an iterator over an even sample of the images after the first `limit` ones, CHUNK images at a time.

        It does not change the log of this dataset. Raises NotApplicable if the dataset has no other images.
        """
        first, rest = len(self), self.available - len(self)
        if not rest:
            raise NotApplicable(
                f"{self.name}: all {self.available:,} images are evaluated, so there are no others whose latents could "
                "be neighbours; give a smaller --limit"
            )
        count = min(count, rest)
        positions = [first + number * rest // count for number in range(count)]
        beside = replace(self, seen=ReadLog(), with_labels=False)
        return ImageLoader(beside, [positions[start : start + CHUNK] for start in range(0, count, CHUNK)])

    def bind(self, model: Bindable) -> None:
        # A model that pairs by order needs the order of the whole dataset, which an even sample changes.
        every = sorted(self.source.names) if self.sampling == "even" else self.source.names
        model.bind_dataset(self.names, every)

    def refuse_empty(self) -> None:
        if self.shape is None:
            first = self.unreadable[0][1] if self.unreadable else "it is empty"
            raise DataError(f"{self.name}: no image could be read ({first})")

    def summary(self) -> StreamSummary:
        return StreamSummary(
            self.sha256,
            len(self) - len(self.unreadable),
            available=self.available,
            limited=self.limited,
            sampling=self.sampling,
            native_size=self.native_size,
            num_upscaled=self.num_upscaled,
            left_out=self.left_out,
            unreadable=self.unreadable,
        )

    def prepared(self, position: int) -> PreparedImage:
        """Return one image, preprocessed as the protocol specifies.

        Raises UnreadableImage for any error that concerns this image alone, so that one unusual image does not end the
        run. Errors that concern all images, such as a missing library, remain UsageErrors.
        """
        name = self.source.names[position]
        try:
            return self._prepared(position)
        except UnreadableImage as error:
            text = str(error)
            raise UnreadableImage(text if text.startswith(f"{name}: ") else f"{name}: {text}") from error
        except TokbenchError:
            raise
        except MemoryError as error:
            raise UnreadableImage(f"{name}: there is not enough memory to preprocess it; scale it down") from error
        except Exception as error:  # Pillow's, OpenCV's and torch's errors have no common class
            reason = f"{type(error).__name__}: {str(error).strip()[:200]}"
            raise UnreadableImage(
                f"{name}: protocol {self.protocol.name} cannot preprocess it ({reason}); remove it, or bring it to the "
                "size and shape of the others"
            ) from error

    def shape_of(self, pixels: np.ndarray) -> tuple[int, ...]:
        return pixels.shape[:2]

    def collate(self, pixels: np.ndarray) -> tuple[Tensor, Tensor | None]:
        levels = to_bchw(pixels)
        return from_uint8(levels), levels if levels.dtype == torch.uint8 else None

    def _prepared(self, position: int) -> PreparedImage:
        image = self.source.open(position)
        if self.common_size is not None and image.size != self.common_size:
            raise UnreadableImage(
                f"{self.source.names[position]}: {image.width}x{image.height} px, but the others have "
                f"{self.common_size[0]}x{self.common_size[1]}; remove it, or give --size S to bring all to S x S"
            )
        pixels, upscaled = prepare(image, self.size, self.protocol)
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
        caption = self.captions.of(position, image) if self.captions else None
        # The digest is that of the clean image, so that features of references are shared with runs on clean images.
        degraded = None if self.degradation is None else degrade(pixels, self.degradation)
        orientation = exif_orientation(image)
        return PreparedImage(
            pixels, original, marked, digest.hexdigest(), upscaled, orientation, caption, degraded=degraded
        )


def open_dataset(
    data: str,
    protocol: Protocol,
    size: int | None = None,
    limit: int | None = None,
    root: Path | None = None,
    reading: ReadOptions = DEFAULTS,
) -> Dataset:
    """Open the dataset `data`: a folder name in `datasets/`, a path to images, or a glob pattern. No image is decoded.

    size: side in pixels. limit: number of images; in class folders that are given by path they are an even sample over
    the sorted list, unless `reading.first` is set. root: folder that contains `datasets/`. reading: how the images of a
    path are found and selected.

    Raises UsageError for an unknown name or split, and DataError if the images are not on this machine, have different
    sizes without `size`, or could be several datasets.
    """
    folders = dataset_folders(root)
    if data in folders:
        if reading.split or reading.column:
            option, what = ("--split", "one split") if reading.split else ("--column", "one column")
            raise UsageError(f"dataset {data} is {what} already, as its dataset.toml states; omit {option}")
        dataset = _named(data, folders[data], protocol, size, limit, reading)
    elif is_path(data):
        source = open_source(data, reading)
        parts = [slug(folder_of(data).resolve().name)]
        parts += [slug(canonical_split(reading.split))] if reading.split else []
        parts += [slug(reading.column)] if reading.column else []
        name = f"{'-'.join(parts)}-{fingerprint(source)}"
        sampling = even_sample(source, limit, reading.first)
        dataset = Dataset(name, source, protocol, size, limit, native_size=None, sampling=sampling)
    else:
        hint = did_you_mean(data, folders)
        raise UsageError(
            f"no dataset or path '{data}'; {hint}available datasets: "
            f"{', '.join(sorted(folders)) or 'none (give --root)'}"
        )
    if dataset.size is not None:
        check_library(protocol)
    dataset.check_sizes()
    return dataset


def _named(
    name: str, folder: Path, protocol: Protocol, size: int | None, limit: int | None, reading: ReadOptions
) -> Dataset:
    description = describe(folder)
    stored = description.get("folder", name)
    if (modality := description.get("modality", "image")) != "image":
        raise DataError(f"dataset {name} has data of the kind {modality}, of which this command reads no images")
    if manifest := description.get("manifest"):
        source: Source = Manifest(folder / manifest)
    elif recipe := description.get("recipe"):
        source = open_recipe(recipe, description["split"], description["count"])
    else:
        paths = locate(stored, description)
        if not paths:
            sources = " or ".join(description["sources"])
            folders = ", ".join(str(folder) for folder in search_folders(stored))
            raise DataError(
                f"dataset {name} is not on this machine: looked for {sources} in {folders}; {description['get']}"
            )
        if "layout" in description:
            source = open_layout(paths[0].parent, description["part"], reading)
        else:
            source = open_sources(paths, reading)
        if description["order"] != "listed":
            sort_by(source, description["order"])
    if annotations := description.get("annotations"):
        source = annotate(source, folder / annotations)
    count = description.get("count", len(source.names))
    if len(source.names) != count:
        raise DataError(
            f"dataset {name} should contain {count} images, but has {len(source.names)}: an incomplete copy?"
        )
    names = description.get("class_names")
    captions = captions_of(source, description.get("captions"), folder / names if names else None)
    own_size = description["size"]
    return Dataset(name, source, protocol, size or own_size, limit, native_size=own_size, captions=captions)
