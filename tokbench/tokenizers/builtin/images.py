"""`images:DIR`: reconstructions made elsewhere, paired with the dataset by relative path without its suffix."""

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

_SHOWN = 8

_TURNED = "an EXIF rotation applied to one side only? tokbench ignores it in originals, so leave it out in both"
"""Why a reconstruction may lie on its side."""


def stem(name: str) -> str:
    """A relative path without its suffix: what reconstructions and originals must share."""
    return str(PurePosixPath(name).with_suffix(""))


class ImageFolder(PrecomputedImages):
    """Images from a folder, zip, tar or Parquet file. Their tokens and bits are unknown."""

    def __init__(self, name: str, path: Path) -> None:
        self.spec = TokenizerSpec(name, "images")
        self._source = open_source(path, mixed=True)  # where they are paired, by names in which the splits are, too
        self._path = path
        self._by_stem: dict[str, int] = {}
        self._checked = False
        for position, file in enumerate(self._source.names):
            if (key := stem(file)) in self._by_stem:
                other = self._source.names[self._by_stem[key]]
                raise AdapterError(f"{path}: {other} and {file} are both reconstructions of '{key}'; keep one")
            self._by_stem[key] = position

    def prepare(self, names: Sequence[str], all_names: Sequence[str]) -> None:
        """Raises AdapterError that lists images without a reconstruction and reconstructions without an image."""
        known = {stem(name) for name in all_names}
        if len(known) < len(all_names):
            seen: set[str] = set()
            again = [name for name in all_names if stem(name) in seen or seen.add(stem(name))]  # type: ignore[func-returns-value]
            raise AdapterError(
                f"several images of the dataset differ by suffix only, so pairs are unclear: {_list(again)}"
            )
        self._asked = list(names)
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
        """Raises AdapterError that lists files which differ in size from their original or cannot be read."""
        wanted = (images.shape[3], images.shape[2])
        if not self._checked:
            self._check_sizes(wanted)
        pictures = self._opened([self._by_stem[stem(name)] for name in names])
        return from_uint8(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))

    @cached_property
    def _order(self) -> list[int]:
        return hash_order(self._source.names)

    @property
    def count(self) -> int:
        """How many images there are."""
        return len(self._source.names)

    @property
    def left_out(self) -> dict[str, int]:
        """How many files beside them look like images and are not read, by suffix."""
        return self._source.left_out

    def samples(self, positions: Sequence[int]) -> Tensor:
        """The first ones by a hash of their names, so that a few of a folder sorted by class are of all classes.

        Raises AdapterError that lists images which cannot be read or differ in size.
        """
        if max(positions) >= self.count:
            raise AdapterError(
                f"{self._path} holds {self.count:,} images, and more are asked for; give a lower --limit"
            )
        found = self._opened([self._order[position] for position in positions])
        if len(sizes := {picture.shape[:2] for picture in found}) > 1:
            listed = _list(sorted(f"{width}x{height}" for height, width in sizes))
            raise AdapterError(f"{self._path} holds samples of unequal sizes: {listed}; make all alike")
        return from_uint8(torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2))

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

    def _check_sizes(self, wanted: tuple[int, int]) -> None:
        """Every reconstruction's header, once, so that all that differ are listed and not the first batch's alone."""
        wrong, turned = [], 0
        for name in self._asked:
            position = self._by_stem[stem(name)]
            try:
                found = self._source.size(position)
            except UnreadableImage as error:
                wrong.append(str(error))
                continue
            if found != wanted:
                turned += found == wanted[::-1]
                wrong.append(f"{self._source.names[position]} is {found[0]}x{found[1]}")
        if wrong:
            size = f"{wanted[0]}x{wanted[1]}"
            raise AdapterError(
                f"{self._path}: {len(wrong)} reconstructions do not fit originals of {size}: {_list(wrong)}"
                + (f"; width and height of {turned} are exchanged: {_TURNED}" if turned else "")
            )
        self._checked = True


def _list(items: Sequence[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")


def load(argument: str, device: str, allow_download: bool) -> ImageFolder:
    """Raises DataError where the path is not readable, AdapterError where two files claim one image."""
    return ImageFolder(f"images:{argument}", Path(argument).expanduser())
