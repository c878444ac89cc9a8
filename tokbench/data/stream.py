"""ImageStream: the interface of the sequences of images that an evaluation iterates over, datasets and sample plans."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import numpy as np
from torch import Tensor

from tokbench.data.annotations import Annotations
from tokbench.data.captions import Captions
from tokbench.errors import NotApplicable
from tokbench.metric_names import Modality
from tokbench.protocol.protocol import Protocol as EvaluationProtocol

CHUNK = 32
"""Number of images per chunk. Results are checkpointed, cached and resumed in chunks: positions 0 to 31, 32 to 63, and
so on, whatever the batch size."""

Sampling = Literal["first", "even"]
"""How a limit selects images: the first ones, or an even sample over the sorted list of images in class folders."""

Share = Callable[[list[range]], list[range]]
"""Selects the spans of positions that this process reads."""


def whole_chunks(batch_size: int) -> int:
    """Return the number of images that are read at a time: `batch_size` rounded up to whole chunks."""
    return -(-batch_size // CHUNK) * CHUNK


def spans(count: int, batch_size: int, share: Share) -> list[range]:
    """Return the spans of `batch_size` positions, from 0 to `count` - 1, that this process reads."""
    return share([range(start, min(start + batch_size, count)) for start in range(0, count, batch_size)])


def all_spans(whole: list[range]) -> list[range]:
    """Return all spans: the share of a single process."""
    return whole


@dataclass(frozen=True)
class AnnotatedImage:
    """The unchanged pixels of an image file, uint8 (h, w, 3), and the annotations of its words and faces."""

    pixels: np.ndarray
    known: Annotations


@dataclass(frozen=True)
class ImageBatch:
    """One batch of a stream: images, or items of another kind, which then replace (3, H, W) by their own shape.

    index: positions (B,).
    names: names of the images (B).
    reference: reference images, float32 (B, 3, H, W) in [0, 1]; None for samples, which have no reference.
    original: pixels of the whole files, each float32 (1, 3, h, w), if the protocol compares with them.
    digests: SHA-256 of each image's preprocessed pixels and, if the protocol uses them, of the whole file's. For
    samples these are their names, by which a checkpoint recognises them.
    levels: the reference as uint8 (B, 3, H, W), if its levels are integers.
    marked: the annotated images, if the dataset has annotations.
    shape: height and width that the output images must have; None if not known yet.
    captions: one per image, if the dataset has captions.
    labels: int64 (B,), if they were requested (`ImageStream.with_labels`) and the dataset has any.
    modality: what the items are. extra: further tensors (B, ...) by name, which metrics of other modalities use, such
    as `rates` and `lengths`.
    degraded: the images that the tokenizer gets instead of the references, float32 (B, 3, H, W) in [0, 1], if the
    protocol degrades images.
    """

    index: Tensor
    names: list[str]
    reference: Tensor | None = None
    original: list[Tensor] | None = None
    digests: list[str] = field(default_factory=list)
    levels: Tensor | None = None
    marked: list[AnnotatedImage] | None = None
    shape: tuple[int, ...] | None = None
    captions: list[str] | None = None
    labels: Tensor | None = None
    modality: Modality = "image"
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    degraded: Tensor | None = None


@dataclass(frozen=True)
class PairedBatch(ImageBatch):
    """A batch in which each image has a reference."""

    reference: Tensor

    @property
    def inputs(self) -> Tensor:
        """The images that the tokenizer gets, float32 (B, 3, H, W) in [0, 1]."""
        return self.reference if self.degraded is None else self.degraded


@dataclass
class ReadLog:
    """Log of reading images.

    digests: SHA-256 of each image that was read, by position. unreadable: reason for each image that could not be read,
    by position. num_upscaled: number of images smaller than the size. rotated: EXIF orientation of each image that has
    one, by position.
    """

    digests: dict[int, str] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)
    num_upscaled: int = 0
    rotated: dict[int, int] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """SHA-256 of the digests of all images read, in the order of their positions."""
        return hashlib.sha256("".join(digest for _, digest in sorted(self.digests.items())).encode()).hexdigest()

    def merge(self, other: ReadLog) -> None:
        """Add the log of another process, which read other images."""
        self.digests |= other.digests
        self.unreadable |= other.unreadable
        self.num_upscaled += other.num_upscaled
        self.rotated |= other.rotated


class Loader(Protocol):
    """Iterates over the batches of a stream.

    total: number of images that this process reads. done: number of images in the batches yielded so far.
    """

    total: int
    done: int

    def __iter__(self) -> Iterator[ImageBatch]: ...

    def prefetch(self) -> None:
        """Start decoding the next batch in threads.

        The caller decides when, because decoding would change the measured time and memory of a tokenizer.
        """


@dataclass(frozen=True)
class StreamSummary:
    """The facts about the images of a finished pass that a result records.

    sha256: SHA-256 of the digests of the images. count: N, the number of images that metrics are computed from.
    references: number of images that samples are compared with; None if each image has one reference, or if a
    statistics file replaces them. pairs: number of pairs of halves, if it does not follow from N. available: number of
    images in the source. limited: the limit, if there are more images. sampling: how the limit selected images.
    native_size: side in pixels of the dataset. num_upscaled: number of images smaller than the size. left_out: number
    of files that were not read, by suffix. unreadable: name and reason of each image that could not be read.
    """

    sha256: str
    count: int
    references: int | None = None
    pairs: int | None = None
    available: int = 0
    limited: int | None = None
    sampling: Sampling = "first"
    native_size: int | None = None
    num_upscaled: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    unreadable: Sequence[tuple[str, str]] = ()


class Bindable(Protocol):
    """The part of a model that a stream uses."""

    def bind_dataset(self, names: Sequence[str], all_names: Sequence[str]) -> None:
        """Receive, before a pass, the names of the images of the pass and those of the whole dataset."""

    def bind_rate(self, rate: int) -> None:
        """Receive, before a pass over waveforms, the samples a second."""


class ImageStream(ABC):
    """Images at positions 0 to len - 1 under one protocol, read in batches.

    modality: what the items are. shape: height and width of the output images, or the whole shape of an item that is
    no image; known after the first batch. seen: log of reading the images.
    with_labels: whether batches have the labels of the images, if there are any. captions: the rule for captions, if
    there are any.
    """

    modality: ClassVar[Modality] = "image"
    name: str
    protocol: EvaluationProtocol
    shape: tuple[int, ...] | None
    seen: ReadLog
    with_labels: bool = False
    captions: Captions | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """Name of the image at each position."""

    @property
    @abstractmethod
    def side(self) -> int | None:
        """Side in pixels that images are brought to; None if they keep their own size."""

    @property
    def labels_sha256(self) -> str | None:
        """SHA-256 of the labels from which batches have labels or captions; None if they have neither.

        The hash of the pixels does not contain them.
        """
        return None

    @property
    @abstractmethod
    def unpaired(self) -> ImageStream | None:
        """The images whose distribution samples are compared with.

        None if each image has one reference, or if a statistics file replaces them.
        """

    @abstractmethod
    def batches(self, batch_size: int, share: Share = all_spans) -> Loader:
        """Return an iterator over the batches that this process reads."""

    def others(self, count: int) -> Loader:
        """Return an iterator over at most `count` images of the source that this stream leaves out, an even sample.

        Raises NotApplicable if there are none.
        """
        raise NotApplicable("these images have no others beside them")

    @abstractmethod
    def bind(self, model: Bindable) -> None:
        """Pass the names of the images to a model. Raises AdapterError if the model cannot process them."""

    @abstractmethod
    def refuse_empty(self) -> None:
        """Raise DataError if the pass did not read any image."""

    @abstractmethod
    def summary(self) -> StreamSummary:
        """Return the facts about the images that a result records, after a pass."""
