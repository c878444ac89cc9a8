"""An OCR network that reads the word in each given crop; text is not detected, since the boxes are given."""

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

WIDEST = 25
"""A crop wider than so many heights is squeezed to it: no word is, and memory grows with the width."""


class TextRecognizer(Recognizer):
    """`read(crops)` gives the text of each crop.

    What is read in a crop does not depend on the other crops: the width to which a crop is padded follows from its
    own shape, and only crops of the same padded width share a batch. With `batch` 1 not even the last bits do; with
    more, kernels may round differently for another number of crops.

    On a CPU batches of one on several threads, with one thread inside each, are about as fast as larger batches, and
    faster where other programs compute: no thread waits for another within a layer.
    """

    batch: int = 1
    """Most crops in one call of the network."""
    threads: int = 1
    """Calls of the network at once."""

    @abstractmethod
    def width(self, height: int, width: int) -> int:
        """Width of the network's input, in pixels, for a crop of that shape; it may depend on nothing else."""

    @abstractmethod
    def read_batch(self, crops: Sequence[np.ndarray], width: int) -> list[str]:
        """The texts of at most `batch` crops, none of them empty, whose `width` is this one."""

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What holds while the batches of one `read` are read."""
        yield

    def read(self, crops: Sequence[np.ndarray]) -> list[str]:
        """The text of each crop, in the order given; of an empty crop (no height or no width) it is "".

        crops: uint8 RGB, each (h, w, 3) of any size. Raises UsageError for anything else.
        """
        texts = [""] * len(crops)
        waiting: dict[int, list[int]] = defaultdict(list)
        for index, crop in enumerate(crops):
            if crop.ndim != 3 or crop.shape[2] != 3 or crop.dtype != np.uint8:
                raise UsageError(f"{self.name} reads crops of shape (h, w, 3), uint8, not {crop.shape} {crop.dtype}")
            if crop.size:
                waiting[self.width(*crop.shape[:2])].append(index)
        batches = [
            (indices[start : start + self.batch], width)
            for width, indices in sorted(waiting.items())
            for start in range(0, len(indices), self.batch)
        ]

        def found(batch: tuple[list[int], int]) -> list[str]:
            indices, width = batch
            return self.read_batch([crops[index] for index in indices], width)

        with self.reading(), ThreadPoolExecutor(self.threads) as pool:
            run = map if self.threads == 1 else pool.map
            for (indices, _), read in zip(batches, run(found, batches), strict=True):
                for index, text in zip(indices, read, strict=True):
                    texts[index] = text
        return texts


def find_weights(reader: str, source: WeightFile, folder: Path, allow_download: bool = False) -> LocalWeights:
    """The reader's weights, looked for in the folder where its own library keeps them, then where all weights are."""
    path = folder / source.file
    if path.is_file() and (digest := sha256_of(path)).startswith(source.sha256):
        return LocalWeights(path, source, digest)
    return resolve(reader, [source], allow_download)
