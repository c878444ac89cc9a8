"""ImageStream: the one interface of everything that an evaluation iterates over, a dataset or a plan of samples."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from torch import Tensor

from tokbench.data.annotations import Annotations
from tokbench.protocol.protocol import Protocol as EvaluationProtocol

CHUNK = 32
"""Images are kept, cached and resumed in units: the positions 0 to 31, 32 to 63 and so on, whatever the batch size."""

Share = Callable[[list[range]], list[range]]
"""Chooses the spans of positions that this process reads."""


def whole_chunks(batch_size: int) -> int:
    """Images of a pass's batch: whole units, however few a tokenizer takes at once."""
    return -(-batch_size // CHUNK) * CHUNK


def spans(count: int, batch_size: int, share: Share) -> list[range]:
    """The positions 0 to `count` - 1 in spans of `batch_size`, those that this process reads."""
    return share([range(start, min(start + batch_size, count)) for start in range(0, count, batch_size)])


def all_spans(whole: list[range]) -> list[range]:
    """The share of a process that is alone."""
    return whole


@dataclass(frozen=True)
class AnnotatedImage:
    """An image file as it is, uint8 (h, w, 3), and what is known of its words and faces, in pixels of it."""

    pixels: np.ndarray
    known: Annotations


@dataclass(frozen=True)
class ImageBatch:
    """One batch of a stream: positions (B,), names, and the reference images, float32 (B, 3, H, W) in [0, 1].

    reference: None where samples are to be drawn, which belong to no reference.
    digests: the sha256 of each image's prepared pixels (and of the whole file's, where the protocol compares with it);
    of samples their names, which tell a checkpoint that they are the same as before.
    original: the whole files, each (1, 3, h, w), where the protocol compares with them.
    levels: the reference as uint8 levels (B, 3, H, W), where they are whole.
    marked: the words and faces of each image, where the dataset has annotations.
    shape: height and width that images made from this batch must have, None where they are not known yet.
    """

    index: Tensor
    names: list[str]
    reference: Tensor | None = None
    original: list[Tensor] | None = None
    digests: list[str] = field(default_factory=list)
    levels: Tensor | None = None
    marked: list[AnnotatedImage] | None = None
    shape: tuple[int, int] | None = None


@dataclass(frozen=True)
class PairedBatch(ImageBatch):
    """A batch of images each of which belongs to its reference."""

    reference: Tensor


@dataclass
class ReadLog:
    """What reading images found out, by position: the digests of those that were read, reasons for the others."""

    digests: dict[int, str] = field(default_factory=dict)
    bad: dict[int, str] = field(default_factory=dict)
    enlarged: int = 0

    @property
    def sha256(self) -> str:
        """Over the digests of all images read, in their order."""
        return hashlib.sha256("".join(digest for _, digest in sorted(self.digests.items())).encode()).hexdigest()

    def merge(self, other: ReadLog) -> None:
        """Take in what another reader found in other images."""
        self.digests |= other.digests
        self.bad |= other.bad
        self.enlarged += other.enlarged


class Loader(Protocol):
    """Iterates over the batches of a stream. total, done: images of this process, and how many were yielded."""

    total: int
    done: int

    def __iter__(self) -> Iterator[ImageBatch]: ...

    def prefetch(self) -> None:
        """Start to decode the next batch in threads. The caller decides when, because decoding beside a tokenizer that
        is being timed would change its time and its memory."""


@dataclass(frozen=True)
class StreamSummary:
    """What a result records about its images, once a pass is over.

    count: N, the images that numbers are computed from. references: how many images samples are compared with; None
    where each image belongs to one reference, or where statistics replace them. pairs: pairs of halves, where their
    number does not follow from N. available: images that there are. limited: N, where there are more. own_size: the
    size of the dataset. enlarged: images smaller than the size. left_out: files that were not read, by suffix.
    bad: name and reason of images that cannot be read.
    """

    sha256: str
    count: int
    references: int | None = None
    pairs: int | None = None
    available: int = 0
    limited: int | None = None
    own_size: int | None = None
    enlarged: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    bad: Sequence[tuple[str, str]] = ()


class Bindable(Protocol):
    """What a stream uses of a model."""

    def bind_dataset(self, names: Sequence[str], all_names: Sequence[str]) -> None:
        """Called before a pass with the names of the images to come and those of the whole dataset."""


class ImageStream(ABC):
    """Positions 0 to len - 1 under one protocol, in batches.

    size: the side that images are brought to, None for their own. shape: height and width of the images made, known
    after the first batch. seen: what reading found out. unpaired: the images whose distribution samples are compared
    with; None where each image belongs to one reference, or where statistics replace them.
    """

    name: str
    protocol: EvaluationProtocol
    shape: tuple[int, int] | None
    seen: ReadLog

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """One for each position."""

    @property
    @abstractmethod
    def side(self) -> int | None:
        """The side that images are brought to, None for their own."""

    @property
    @abstractmethod
    def unpaired(self) -> ImageStream | None: ...

    @abstractmethod
    def batches(self, batch_size: int, share: Share = all_spans) -> Loader:
        """The batches of this process."""

    @abstractmethod
    def bind(self, model: Bindable) -> None:
        """Tell a model which images will come. Raises AdapterError where it cannot serve them."""

    @abstractmethod
    def refuse_empty(self) -> None:
        """Raises DataError where a pass read not one image."""

    @abstractmethod
    def summary(self) -> StreamSummary:
        """What a result records, after a pass."""
