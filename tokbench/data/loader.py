"""The loader: decodes and prepares the images of a dataset in threads, one span of positions at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tokbench.data.sources.base import Source
from tokbench.data.stream import AnnotatedImage, PairedBatch, ReadLog
from tokbench.errors import UnreadableImage
from tokbench.protocol.rounding import from_uint8


@dataclass(frozen=True)
class PreparedImage:
    """One image's pixels (H, W, 3), those of the whole file where they are compared, what is known of its words and
    faces, and a sha256 of all that."""

    pixels: np.ndarray
    original: np.ndarray | None
    marked: AnnotatedImage | None
    digest: str
    enlarged: bool


class Readable(Protocol):
    """What a reader uses of a dataset."""

    source: Source
    shape: tuple[int, int] | None
    seen: ReadLog

    def prepared(self, position: int) -> PreparedImage:
        """One image as the protocol prepares it. Raises BadImage."""


class ImageLoader:
    """Iterates over spans of positions; decodes and prepares each span's images in a few threads.

    `ahead` starts on the next span. It is for the caller to say when: what decodes while a tokenizer is timed would
    spoil its timing.
    """

    def __init__(self, dataset: Readable, spans: Sequence[Sequence[int]]) -> None:
        self._dataset, self._spans, self._next = dataset, spans, 0
        self.total, self.done = sum(len(span) for span in spans), 0
        self._coming: list[Future[PreparedImage]] = []
        self._pool: ThreadPoolExecutor | None = None

    def __iter__(self) -> Iterator[PairedBatch]:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "decode") as self._pool:
            try:
                while self._next < len(self._spans):
                    self.prefetch()
                    span, coming = self._spans[self._next], self._coming
                    self._next, self._coming, self.done = self._next + 1, [], self.done + len(span)
                    if (images := self._gather(span, coming)) is not None:
                        yield images
            finally:  # whoever leaves the loop early waits for no image more
                self._pool.shutdown(wait=False, cancel_futures=True)

    def prefetch(self) -> None:
        """Begin to decode the next span, if there is one and that has not begun."""
        if not self._coming and self._pool is not None and self._next < len(self._spans):
            prepare = self._dataset.prepared
            self._coming = [self._pool.submit(prepare, position) for position in self._spans[self._next]]

    def _gather(self, span: Sequence[int], coming: Sequence[Future[PreparedImage]]) -> PairedBatch | None:
        dataset, seen = self._dataset, self._dataset.seen
        kept: list[tuple[int, PreparedImage]] = []
        for position, task in zip(span, coming, strict=True):
            try:
                made = task.result()
                if dataset.shape is None:
                    dataset.shape = (made.pixels.shape[0], made.pixels.shape[1])
                elif made.pixels.shape[:2] != dataset.shape:
                    raise UnreadableImage(f"{dataset.source.names[position]}: changed its size during the run")
            except UnreadableImage as error:
                seen.bad[position] = str(error)
                continue
            seen.digests[position] = made.digest
            seen.enlarged += made.enlarged
            kept.append((position, made))
        if not kept:
            return None
        marked = [made.marked for _, made in kept if made.marked]
        levels = _planes(np.stack([made.pixels for _, made in kept]))
        return PairedBatch(
            torch.tensor([position for position, _ in kept]),
            [dataset.source.names[position] for position, _ in kept],
            from_uint8(levels),
            [from_uint8(_planes(made.original[None])) for _, made in kept if made.original is not None] or None,
            [made.digest for _, made in kept],
            levels if levels.dtype == torch.uint8 else None,
            marked or None,
            dataset.shape,
        )


def _planes(pixels: np.ndarray) -> Tensor:
    """(B, H, W, 3) to (B, 3, H, W)."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
