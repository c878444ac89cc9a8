"""`tokbench.open_dataset`, and the forms of data that `tokbench.evaluate` accepts."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler

from tokbench.data.dataset import Dataset
from tokbench.data.preprocess import check_library
from tokbench.data.reading import ReadOptions
from tokbench.data.sources.base import Source
from tokbench.errors import DataError, UsageError
from tokbench.modalities.open import open_dataset as open_path
from tokbench.paths import slug
from tokbench.protocol.protocol import Protocol, load_protocol
from tokbench.protocol.rounding import to_uint8

_LOG = logging.getLogger("tokbench")

_OUTSIDE = 1e-6
"""Tolerance for values outside [0, 1], for rounding errors."""

_ACCEPTED = (
    "accepted are tensors (3, H, W) or (B, 3, H, W), float in [0, 1] or uint8, Pillow images in RGB, and pairs that "
    "start with one of these"
)


class Pixels(Source):
    """Images in memory, uint8 (H, W, 3), named by their positions."""

    def __init__(self, images: list[np.ndarray]) -> None:
        self._images = images
        self.names = [f"{position:08d}" for position in range(len(images))]
        digest = hashlib.sha256()
        for image in images:
            digest.update(repr(image.shape).encode())
            digest.update(image.tobytes())
        self.sha256 = digest.hexdigest()

    def read(self, position: int) -> bytes:
        return self._images[self._at(position)].tobytes()

    def open(self, position: int) -> Image.Image:
        return Image.fromarray(self._images[self._at(position)])

    def size(self, position: int) -> tuple[int, int]:
        height, width = self._images[self._at(position)].shape[:2]
        return width, height

    def listing(self) -> list[tuple[str, int]]:
        return [(self.sha256, sum(image.nbytes for image in self._images))]


def open_dataset(
    data: Any,
    *,
    protocol: str | Protocol = "tokbench",
    size: int | None = None,
    limit: int | None = None,
    split: str | None = None,
    column: str | None = None,
    follow_links: bool = False,
    first: bool = False,
    root: str | Path | None = None,
) -> Dataset:
    """Open images in a fixed order, with the preparation of a protocol, for `tokbench.evaluate`.

    data: a dataset's name, a path (a folder, a zip, tar, Parquet, Arrow or .npz file, a .txt list of paths), or a
    pattern of paths, as for `--data` on the command line; or images in memory: a torch Dataset, a DataLoader, a tensor
    (N, 3, H, W), or an iterable. Items are tensors (3, H, W) or batches (B, 3, H, W), float in [0, 1] or uint8, or
    Pillow images in RGB. If an item is a tuple or list, such as (image, label), its first entry is the image. Floats
    are rounded to 8 bits, as in image files.

    Images in memory are read once, when this function is called, and stored as uint8: 10,000 images of 256 x 256 px
    take 2 GB. An iterator that can be read only once can therefore be used for several evaluations.

    protocol: a name, the path of a .toml file, or a `tokbench.Protocol`. size: the short side is resized to this number
    of pixels and the centre is cropped; None keeps the images as they are, which requires equal sizes. limit: use only
    this number of images: an even sample of class folders that are given by path, otherwise the first images. first:
    use the first images of class folders, too. split: train, validation or test, if a path contains several. column:
    the column (Parquet, Arrow) or array (.npz) that contains the images, if there are several. follow_links: read
    symbolic links that leave a folder. root: the folder with adapters/ and datasets/.

    Raises UsageError for unknown names and invalid arguments, DataError for images that cannot be used.

    >>> import torch, tokbench
    >>> dataset = tokbench.open_dataset(torch.rand(4, 3, 32, 32))
    >>> len(dataset), dataset.name.startswith("images-")
    (4, True)
    """
    rules = protocol if isinstance(protocol, Protocol) else load_protocol(str(protocol))
    if isinstance(data, str | Path):
        place = None if root is None else Path(root)
        reading = ReadOptions(split, column, follow_links, first)
        return open_path(str(data), rules, size, limit, place, reading)
    if split is not None or column is not None or follow_links:
        raise UsageError("split, column and follow_links apply only to data given as a path")
    for name, value in (("limit", limit), ("size", size)):
        if value is not None and value < 1:
            raise UsageError(f"{name} must be at least 1, but is {value}")
    if size is not None:
        check_library(rules)
    source = Pixels(_read(data, size, limit))
    opened = Dataset(f"{_name_of(data)}-{source.sha256[:6]}", source, rules, size)
    opened.check_sizes()
    return opened


def _name_of(data: object) -> str:
    held = data.dataset if isinstance(data, DataLoader) else data
    return slug(type(held).__name__) if isinstance(held, torch.utils.data.Dataset) else "images"


def _read(data: Any, size: int | None, limit: int | None) -> list[np.ndarray]:
    """Read the first `limit` images.

    Raises DataError if there are none, or if their sizes differ and no size is given; UsageError if `data` has none of
    the accepted forms.
    """
    if isinstance(data, DataLoader) and isinstance(data.sampler, RandomSampler):
        _LOG.warning(
            "the DataLoader shuffles, so each call reads the images in a different order: reference features are "
            "computed again and results cannot be compared; use shuffle=False"
        )
    images: list[np.ndarray] = []
    for item in _items(data):
        for image in _pixels(item, len(images)):
            if images and size is None and image.shape != images[0].shape:
                (height, width), (other_height, other_width) = images[0].shape[:2], image.shape[:2]
                raise DataError(
                    f"the images have different sizes (image 0 is {width}x{height}, image {len(images)} is "
                    f"{other_width}x{other_height}); use size=S to resize all of them to S x S"
                )
            images.append(image)
            if len(images) == limit:
                return images
    if not images:
        raise DataError("the data contain no images; note that an iterator can be read only once")
    return images


def _items(data: Any) -> Iterator[Any]:
    """Iterate over the items of a torch Dataset, DataLoader, tensor or iterable. Raises UsageError for other types."""
    if isinstance(data, Tensor):
        if data.dim() != 4:
            raise UsageError(f"a tensor of images must have the shape (N, 3, H, W), but has {tuple(data.shape)}")
        return iter((data,))
    if isinstance(data, Mapping) or not (isinstance(data, Iterable) or hasattr(data, "__getitem__")):
        raise UsageError(
            f"data of type {type(data).__name__} cannot be read; expected a dataset's name, a path, a torch Dataset, a "
            "DataLoader, a tensor (N, 3, H, W), or an iterable of images"
        )
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return (data[position] for position in range(len(data)))  # iterating over a torch Dataset might not end
    return iter(data)


def _pixels(item: Any, position: int) -> Iterator[np.ndarray]:
    """Yield the images of one item, uint8 (H, W, 3). position: that of the first image. Raises DataError."""
    held = item[0] if isinstance(item, tuple | list) and item else item
    if isinstance(held, Image.Image):
        if held.mode != "RGB":
            raise DataError(f"image {position} has the Pillow mode {held.mode}; convert it with image.convert('RGB')")
        yield np.array(held)
        return
    if not isinstance(held, Tensor):
        keys = f" with the keys {', '.join(map(str, held))}" if isinstance(held, Mapping) else ""
        raise DataError(f"item {position} of the data has the type {type(held).__name__}{keys}; {_ACCEPTED}")
    batch = held.detach().cpu()
    batch = batch[None] if batch.dim() == 3 else batch
    if batch.dim() != 4 or batch.shape[1] != 3 or 0 in batch.shape[2:]:
        raise DataError(f"image {position} has the shape {tuple(held.shape)}; {_ACCEPTED}")
    if batch.is_floating_point():
        batch = batch.float()
        for offset, image in enumerate(batch):
            low, high = float(image.min()), float(image.max())
            if not (low >= -_OUTSIDE and high <= 1 + _OUTSIDE):  # this also catches NaN
                raise DataError(
                    f"image {position + offset} has values from {low:g} to {high:g}; floats must lie in [0, 1]: use "
                    "(x + 1) / 2 for images in [-1, 1] and x / 255 for images in [0, 255]"
                )
        batch = to_uint8(batch)
    elif batch.dtype != torch.uint8:
        raise DataError(f"image {position} is a tensor of {batch.dtype}; {_ACCEPTED}")
    yield from batch.permute(0, 2, 3, 1).contiguous().numpy().copy()
