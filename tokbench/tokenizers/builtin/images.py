"""`images:PATH`: reconstructions computed by another program, paired with the dataset by relative path without the
suffix, or by order."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tokbench.data.decode import exif_orientation, is_image_suffix
from tokbench.data.reading import DEFAULTS, ReadOptions
from tokbench.data.sources.archive import Zip, undecoded_name
from tokbench.data.sources.base import hash_order
from tokbench.data.sources.open import open_source
from tokbench.errors import AdapterError, UnreadableImage
from tokbench.protocol.rounding import from_uint8
from tokbench.tokenizers.base import PrecomputedImages
from tokbench.tokenizers.spec import TokenizerSpec

_MAX_LISTED = 8

_ROTATED = "was an EXIF rotation applied to one side only? tokbench ignores it in originals, so apply it to neither"
"""The likely reason why a reconstruction has width and height exchanged."""


_ENCODINGS = ("gbk", "shift_jis", "big5", "euc_kr", "cp1251", "cp850", "cp1252")
"""Encodings of names in zip files that do not state one. An encoding is used only if its names are those of images."""


def stem(name: str) -> str:
    """Return the key by which reconstructions and originals are paired: the path without the suffix of an image format,
    in Unicode's composed form (macOS stores names decomposed)."""
    folder, _, file = unicodedata.normalize("NFC", name).rpartition("/")
    base, dot, suffix = file.rpartition(".")
    if dot and base and is_image_suffix(f".{suffix.lower()}"):
        file = base
    return f"{folder}/{file}" if folder else file


class ImageFolder(PrecomputedImages):
    """Images from any source that can be a dataset. Their tokens and bits are unknown.

    pair: whether they belong to the images of the same name, or to those at the same positions. rotated: the EXIF
    orientation of the images read so far that have one, by the name of their original.
    """

    def __init__(self, name: str, path: Path, reading: ReadOptions = DEFAULTS) -> None:
        self.spec = TokenizerSpec(name, "images")
        # Names include the splits, by which images are paired. The column of --column is that of the originals.
        self._source = open_source(path, replace(reading, split=None, column=None), mixed=True)
        self._path, self.pair = path, reading.pair
        self._positions: dict[str, int] = {}
        self._checked = False
        self.rotated: dict[str, int] = {}

    def bind_dataset(self, names: Sequence[str], all_names: Sequence[str]) -> None:
        """Pair the images with a dataset. Raises AdapterError that lists images without a reconstruction and
        reconstructions without an image, or states the counts if they are paired by order."""
        self._names = list(names)
        by_order = self.pair == "order"
        self._positions = self._pair_by_order(names, all_names) if by_order else self._pair_by_name(names, all_names)

    def _pair_by_order(self, names: Sequence[str], all_names: Sequence[str]) -> dict[str, int]:
        for expected in (all_names, names):
            if len(expected) == self.count:
                order = _numeric_order(self._source.names)
                self._refuse_crossed(expected, order)
                return dict(zip(expected, order, strict=True))
        measured = f" ({len(names):,} of them are measured)" if len(names) < len(all_names) else ""
        raise AdapterError(
            f"{self._path} holds {self.count:,} reconstructions, and the dataset has {len(all_names):,} "
            f"images{measured}; with --pair order the numbers must be equal"
        )

    def _refuse_crossed(self, expected: Sequence[str], order: Sequence[int]) -> None:
        """Raise AdapterError if both sides have the same names, but their order pairs different ones.

        Originals are in the order of their names as texts, numbered reconstructions in that of the numbers.
        """
        ours = [stem(self._source.names[position]) for position in order]
        theirs = [stem(name) for name in expected]
        if ours != theirs and len(set(ours)) == len(ours) and set(ours) == set(theirs):
            first = next(i for i in range(len(ours)) if ours[i] != theirs[i])
            raise AdapterError(
                f"{self._path}: both sides have the same names, but --pair order pairs {expected[first]} with "
                f"{self._source.names[order[first]]}; leave out --pair order, to pair by name"
            )

    def _pair_by_name(self, names: Sequence[str], all_names: Sequence[str]) -> dict[str, int]:
        known = _by_stem(all_names)
        if len(known) < len(all_names):
            duplicates = [name for position, name in enumerate(all_names) if known[stem(name)] != position]
            raise AdapterError(
                "several images of the dataset differ by suffix only, so they cannot be paired by name: "
                f"{_list(duplicates)}"
            )
        ours = self._source.names
        by_stem = _by_stem(ours)
        if len(by_stem) < self.count:
            file = next(name for i, name in enumerate(ours) if by_stem[stem(name)] != i)
            other = ours[by_stem[stem(file)]]
            raise AdapterError(f"{self._path}: {other} and {file} are both reconstructions of '{stem(file)}'; keep one")
        if not by_stem.keys() <= known.keys():
            by_stem = self._decoded(known) or by_stem
        missing = [name for name in names if stem(name) not in by_stem]
        extra = [ours[position] for key, position in by_stem.items() if key not in known]
        problems = []
        if missing:
            problems.append(f"{len(missing)} images have no reconstruction: {_list(missing)}")
        if extra:
            problems.append(f"{len(extra)} reconstructions belong to no image: {_list(extra)}")
        if problems:
            raise AdapterError(
                f"{self._path} does not fit the dataset (paired by path without suffix); {'; '.join(problems)}"
                f"{self._remedy(names, all_names, known)}"
            )
        return {name: by_stem[stem(name)] for name in names}

    def _decoded(self, known: Mapping[str, int]) -> dict[str, int] | None:
        """Return the positions by names decoded with an encoding that makes all of them names of images, or None."""
        if not isinstance(self._source, Zip):
            return None
        for encoding in _ENCODINGS:
            names = [undecoded_name(name, encoding) or name for name in self._source.names]
            by_stem = _by_stem(names)
            if len(by_stem) == self.count and by_stem.keys() <= known.keys():
                return by_stem
        return None

    def _remedy(self, names: Sequence[str], all_names: Sequence[str], known: Mapping[str, int]) -> str:
        if self.count in (len(names), len(all_names)):
            return "; if they are in the order of the images, give --pair order"
        files = {key.rpartition("/")[2] for key in known}
        ours = [stem(name).rpartition("/")[2] for name in self._source.names]
        if len(files) == len(known) and files.issuperset(ours):
            return "; only their folders differ: give the folder at the same level as that of the images"
        return ""

    def reconstruct(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Return the paired images. Raises AdapterError that lists files that differ in size from their original or
        cannot be read."""
        size = (images.shape[3], images.shape[2])
        if not self._checked:
            self._check_sizes(size)
        positions = [self._positions[name] for name in names]
        pictures = self._opened(positions, names)
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

    def _opened(self, positions: Sequence[int], names: Sequence[str] = ()) -> list[np.ndarray]:
        pictures, problems = [], []
        for number, position in enumerate(positions):
            try:
                image = self._source.open(position)
                if names and (orientation := exif_orientation(image)) != 1:
                    self.rotated[names[number]] = orientation
                pictures.append(np.asarray(image))
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
            position = self._positions[name]
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


def _by_stem(names: Sequence[str]) -> dict[str, int]:
    """Return the first position of each key."""
    found: dict[str, int] = {}
    for position, name in enumerate(names):
        found.setdefault(stem(name), position)
    return found


def _numeric_order(names: Sequence[str]) -> list[int]:
    """Return the positions in the order of the numbers in the names, if these differ in one number only (`2.png` is
    before `10.png`); otherwise unchanged."""
    matches = [re.fullmatch(r"(.*?)(\d{1,18})", stem(name), re.DOTALL) for name in names]
    found = [match for match in matches if match]
    if len(found) < len(names) or len({match[1] for match in found}) > 1:
        return list(range(len(names)))
    return sorted(range(len(names)), key=lambda position: int(found[position][2]))


def _list(items: Sequence[str]) -> str:
    return ", ".join(items[:_MAX_LISTED]) + (
        f" and {len(items) - _MAX_LISTED} more" if len(items) > _MAX_LISTED else ""
    )


def load(argument: str, device: str, allow_download: bool, reading: ReadOptions = DEFAULTS) -> ImageFolder:
    """Return the images of a path. Raises DataError if it cannot be read."""
    return ImageFolder(f"images:{argument}", Path(argument).expanduser(), reading)
