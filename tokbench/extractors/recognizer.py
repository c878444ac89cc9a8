"""The interface of OCR networks that read the word in each given crop. Text is not detected, since the boxes
are given."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tokbench.errors import UsageError
from tokbench.extractors.reader import Recognizer
from tokbench.io.hashing import sha256_of
from tokbench.weights.registry import LocalWeights, WeightFile, resolve

MAX_ASPECT = 25
"""The largest ratio of width to height. Wider crops are squeezed to it: no word is wider, and memory grows with the
width."""


class TextRecognizer(Recognizer):
    """`read(crops)` returns the text of each crop.

    The text of a crop does not depend on other crops: a crop is padded to a width that follows from its own shape, and
    only crops of the same padded width share a batch. With `batch` 1 even the last bits of the activations are
    independent; with a larger batch, kernels may round differently for another number of crops.

    On a CPU, batches of one on several threads, each with one thread inside, are about as fast as larger batches, and
    faster where other programs compute, since no thread waits for another within a layer.
    """

    batch: int = 1
    """The largest number of crops in one call of the network."""
    threads: int = 1
    """The number of simultaneous calls of the network."""

    @abstractmethod
    def width(self, height: int, width: int) -> int:
        """Return the width of the network's input, in pixels, for a crop of that shape. It must depend on
        nothing else."""

    @abstractmethod
    def read_batch(self, crops: Sequence[np.ndarray], width: int) -> list[str]:
        """Return the texts of at most `batch` non-empty crops, for all of which `width` returned this width."""

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Context manager that is active while one call of `read` runs."""
        yield

    def read(self, crops: Sequence[np.ndarray]) -> list[str]:
        """Return the text of each crop, in the order given. The text of an empty crop (no height or no width) is "".

        crops: uint8 RGB, each (h, w, 3) of any size. Raises UsageError for anything else.
        """
        texts = [""] * len(crops)
        by_width: dict[int, list[int]] = defaultdict(list)
        for index, crop in enumerate(crops):
            if crop.ndim != 3 or crop.shape[2] != 3 or crop.dtype != np.uint8:
                raise UsageError(f"{self.name} needs crops of shape (h, w, 3), uint8, not {crop.shape} {crop.dtype}")
            if crop.size:
                by_width[self.width(*crop.shape[:2])].append(index)
        batches = [
            (indices[start : start + self.batch], width)
            for width, indices in sorted(by_width.items())
            for start in range(0, len(indices), self.batch)
        ]

        def recognize(batch: tuple[list[int], int]) -> list[str]:
            indices, width = batch
            return self.read_batch([crops[index] for index in indices], width)

        with self.reading(), ThreadPoolExecutor(self.threads) as pool:
            run = map if self.threads == 1 else pool.map
            for (indices, _), read in zip(batches, run(recognize, batches), strict=True):
                for index, text in zip(indices, read, strict=True):
                    texts[index] = text
        return texts


def find_weights(reader: str, source: WeightFile, folder: Path, allow_download: bool = False) -> LocalWeights:
    """Return the recognizer's weights from its own library's folder, else from the folders for all weights.

    Raises MissingWeights where they are in neither.
    """
    path = folder / source.file
    if path.is_file() and (digest := sha256_of(path)).startswith(source.sha256):
        return LocalWeights(path, source, digest)
    return resolve(reader, [source], allow_download)
