"""ImageLoader: decodes and preprocesses the images of a dataset in threads, one span of positions at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from tokbench.data.sources.base import Source
from tokbench.data.stream import AnnotatedImage, PairedBatch, ReadLog
from tokbench.errors import UnreadableImage
from tokbench.metric_names import Modality
from tokbench.protocol.rounding import from_uint8


@dataclass(frozen=True)
class PreparedImage:
    """One preprocessed image.

    pixels: (H, W, 3), uint8 or float32 levels in [0, 255]. original: the whole file's pixels (h, w, 3), if the protocol
    compares with them. marked: the annotated image, if the dataset has annotations. digest: SHA-256 of these fields.
    upscaled: whether the image was smaller than the size. orientation: EXIF orientation, which is ignored. caption:
    its caption, if the dataset has captions. extra: further arrays by name (`ImageBatch.extra`). degraded: the pixels
    that the tokenizer gets instead, uint8 (H, W, 3), if the protocol degrades images.

    An item that is no image has another shape than (H, W, 3), which its dataset defines.
    """

    pixels: np.ndarray
    original: np.ndarray | None
    marked: AnnotatedImage | None
    digest: str
    upscaled: bool
    orientation: int = 1
    caption: str | None = None
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    degraded: np.ndarray | None = None


class Readable(Protocol):
    """The part of a dataset that the loader uses."""

    modality: ClassVar[Modality]
    source: Source
    shape: tuple[int, ...] | None
    seen: ReadLog

    def shape_of(self, pixels: np.ndarray) -> tuple[int, ...]:
        """Return the shape that all preprocessed items must have, as in `ImageStream.shape`."""

    def collate(self, pixels: np.ndarray) -> tuple[Tensor, Tensor | None]:
        """Return the values in [0, 1] of stacked items, and their levels, uint8, where the values are 8-bit levels."""

    @property
    def labels(self) -> Mapping[str, int] | None:
        """Label of each image by its name; None if they are not needed or if there are none."""

    def prepared(self, position: int) -> PreparedImage:
        """Return one preprocessed image. Raises UnreadableImage."""


class ImageLoader:
    """Iterates over spans of positions and yields one batch per span that has a readable image.

    A few threads decode and preprocess the images. total: number of images in all spans. done: number of images in the
    spans yielded so far. `prefetch` starts decoding the next span; the caller decides when, because decoding would
    disturb the timing of a tokenizer.
    """

    def __init__(self, dataset: Readable, spans: Sequence[Sequence[int]]) -> None:
        self._dataset, self._spans, self._next = dataset, spans, 0
        self.total, self.done = sum(len(span) for span in spans), 0
        self._tasks: list[Future[PreparedImage]] = []
        self._pool: ThreadPoolExecutor | None = None

    def __iter__(self) -> Iterator[PairedBatch]:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "decode") as self._pool:
            try:
                while self._next < len(self._spans):
                    self.prefetch()
                    span, tasks = self._spans[self._next], self._tasks
                    self._next, self._tasks, self.done = self._next + 1, [], self.done + len(span)
                    if (images := self._gather(span, tasks)) is not None:
                        yield images
            finally:  # a caller that leaves the loop early does not wait for pending images
                self._pool.shutdown(wait=False, cancel_futures=True)

    def prefetch(self) -> None:
        """Start decoding the next span in threads, unless it has been started or there is none."""
        if not self._tasks and self._pool is not None and self._next < len(self._spans):
            prepare = self._dataset.prepared
            self._tasks = [self._pool.submit(prepare, position) for position in self._spans[self._next]]

    def _gather(self, span: Sequence[int], tasks: Sequence[Future[PreparedImage]]) -> PairedBatch | None:
        dataset, seen = self._dataset, self._dataset.seen
        readable: list[tuple[int, PreparedImage]] = []
        for position, task in zip(span, tasks, strict=True):
            try:
                image = task.result()
                shape = dataset.shape_of(image.pixels)
                if dataset.shape is None:
                    dataset.shape = shape
                elif shape != dataset.shape:
                    raise UnreadableImage(f"{dataset.source.names[position]}: its size changed during the run")
            except UnreadableImage as error:
                seen.unreadable[position] = str(error)
                continue
            seen.digests[position] = image.digest
            seen.num_upscaled += image.upscaled
            if image.orientation != 1:
                seen.rotated[position] = image.orientation
            readable.append((position, image))
        if not readable:
            return None
        marked = [image.marked for _, image in readable if image.marked]
        degraded = [image.degraded for _, image in readable if image.degraded is not None]
        captions = [image.caption for _, image in readable if image.caption is not None]
        names = [dataset.source.names[position] for position, _ in readable]
        labels = dataset.labels
        reference, levels = dataset.collate(np.stack([image.pixels for _, image in readable]))
        extra = {
            name: torch.from_numpy(np.stack([image.extra[name] for _, image in readable]))
            for name in readable[0][1].extra
        }
        return PairedBatch(
            torch.tensor([position for position, _ in readable]),
            names,
            reference,
            [from_uint8(to_bchw(image.original[None])) for _, image in readable if image.original is not None] or None,
            [image.digest for _, image in readable],
            levels,
            marked or None,
            dataset.shape,
            captions or None,
            None if labels is None else torch.tensor([labels[name] for name in names]),
            dataset.modality,
            extra,
            from_uint8(to_bchw(np.stack(degraded))) if degraded else None,
        )


def to_bchw(pixels: np.ndarray) -> Tensor:
    """Convert an array (B, H, W, 3) to a tensor (B, 3, H, W)."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
