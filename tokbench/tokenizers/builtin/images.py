"""`images:DIR`: reconstructions computed by another program, paired with the dataset by relative path without the
suffix."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from tokbench.data.sources.base import hash_order
from tokbench.data.sources.open import open_source
from tokbench.errors import AdapterError, UnreadableImage
from tokbench.protocol.rounding import from_uint8
from tokbench.tokenizers.base import PrecomputedImages
from tokbench.tokenizers.spec import TokenizerSpec

_MAX_LISTED = 8

_ROTATED = "was an EXIF rotation applied to one side only? tokbench ignores it in originals, so apply it to neither"
"""The likely reason why a reconstruction has width and height exchanged."""


def stem(name: str) -> str:
    """Return a relative path without its suffix, by which reconstructions and originals are paired."""
    return str(PurePosixPath(name).with_suffix(""))


class ImageFolder(PrecomputedImages):
    """Images from a folder, zip, tar or Parquet file. Their tokens and bits are unknown."""

    def __init__(self, name: str, path: Path) -> None:
        self.spec = TokenizerSpec(name, "images")
        self._source = open_source(path, mixed=True)  # names include the splits, by which images are paired
        self._path = path
        self._by_stem: dict[str, int] = {}
        self._checked = False
        for position, file in enumerate(self._source.names):
            if (key := stem(file)) in self._by_stem:
                other = self._source.names[self._by_stem[key]]
                raise AdapterError(f"{path}: {other} and {file} are both reconstructions of '{key}'; keep one")
            self._by_stem[key] = position

    def bind_dataset(self, names: Sequence[str], all_names: Sequence[str]) -> None:
        """Pair the images with a dataset. Raises AdapterError that lists images without a reconstruction and
        reconstructions without an image."""
        known = {stem(name) for name in all_names}
        if len(known) < len(all_names):
            seen: set[str] = set()
            duplicates = [name for name in all_names if stem(name) in seen or seen.add(stem(name))]  # type: ignore[func-returns-value]
            raise AdapterError(
                f"several images of the dataset differ by suffix only, so they cannot be paired: {_list(duplicates)}"
            )
        self._names = list(names)
        missing = [name for name in names if stem(name) not in self._by_stem]
        extra = [name for key, name in zip(self._by_stem, self._source.names, strict=True) if key not in known]
        problems = []
        if missing:
            problems.append(f"{len(missing)} images have no reconstruction: {_list(missing)}")
        if extra:
            problems.append(f"{len(extra)} reconstructions belong to no image: {_list(extra)}")
        if problems:
            raise AdapterError(
                f"{self._path} does not fit the dataset (paired by path without suffix); {'; '.join(problems)}"
            )

    def reconstruct(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Return the paired images. Raises AdapterError that lists files that differ in size from their original or
        cannot be read."""
        size = (images.shape[3], images.shape[2])
        if not self._checked:
            self._check_sizes(size)
        pictures = self._opened([self._by_stem[stem(name)] for name in names])
        return from_uint8(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))

    @cached_property
    def _order(self) -> list[int]:
        return hash_order(self._source.names)

    @property
    def count(self) -> int:
        """The number of images."""
        return len(self._source.names)

    @property
    def left_out(self) -> dict[str, int]:
        """The number of files, by suffix, that look like images but are not read."""
        return self._source.left_out

    def samples(self, positions: Sequence[int]) -> Tensor:
        """Return the images at these positions in the order of a hash of their names, so that the first images of a
        folder that is sorted by class come from all classes.

        Raises AdapterError that lists images that cannot be read or differ in size.
        """
        if max(positions) >= self.count:
            raise AdapterError(
                f"{self._path} holds only {self.count:,} images, fewer than requested; give a lower --limit"
            )
        pictures = self._opened([self._order[position] for position in positions])
        if len(sizes := {picture.shape[:2] for picture in pictures}) > 1:
            listed = _list(sorted(f"{width}x{height}" for height, width in sizes))
            raise AdapterError(f"{self._path} holds samples of different sizes: {listed}; resize them to one size")
        return from_uint8(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))

    def _opened(self, positions: Sequence[int]) -> list[np.ndarray]:
        pictures, problems = [], []
        for position in positions:
            try:
                pictures.append(np.asarray(self._source.open(position)))
            except UnreadableImage as error:
                problems.append(str(error))
        if problems:
            raise AdapterError(f"{self._path}: {len(problems)} images cannot be read: {_list(problems)}")
        return pictures

    def _check_sizes(self, expected: tuple[int, int]) -> None:
        """Check the size in every reconstruction's header once, so that the error lists all that differ rather than
        those of the first batch."""
        wrong, rotated = [], 0
        for name in self._names:
            position = self._by_stem[stem(name)]
            try:
                size = self._source.size(position)
            except UnreadableImage as error:
                wrong.append(str(error))
                continue
            if size != expected:
                rotated += size == expected[::-1]
                wrong.append(f"{self._source.names[position]} is {size[0]}x{size[1]}")
        if wrong:
            raise AdapterError(
                f"{self._path}: {len(wrong)} reconstructions do not fit originals of {expected[0]}x{expected[1]}: "
                f"{_list(wrong)}" + (f"; width and height of {rotated} are exchanged: {_ROTATED}" if rotated else "")
            )
        self._checked = True


def _list(items: Sequence[str]) -> str:
    return ", ".join(items[:_MAX_LISTED]) + (
        f" and {len(items) - _MAX_LISTED} more" if len(items) > _MAX_LISTED else ""
    )


def load(argument: str, device: str, allow_download: bool) -> ImageFolder:
    """Return the images of a path. Raises DataError where it cannot be read, AdapterError where two files match one
    image."""
    return ImageFolder(f"images:{argument}", Path(argument).expanduser())
