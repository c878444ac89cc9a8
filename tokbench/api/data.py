"""What `tokbench.evaluate` takes as data, and `tokbench.open_dataset`."""

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

from tokbench.data import dataset
from tokbench.data.dataset import Dataset
from tokbench.data.preprocess import check_library
from tokbench.data.sources.base import Source
from tokbench.errors import DataError, UsageError
from tokbench.paths import slug
from tokbench.protocol.protocol import Protocol, load_protocol
from tokbench.protocol.rounding import to_uint8

_LOG = logging.getLogger("tokbench")

_OUTSIDE = 1e-6
"""How far a value may lie outside [0, 1]: what rounding costs."""

_ACCEPTED = (
    "accepted are tensors (3, H, W) or (B, 3, H, W), float in [0, 1] or uint8, RGB images of Pillow, and pairs that "
    "start with one of them"
)


class Pixels(Source):
    """Images in memory, uint8 (H, W, 3), called by their places."""

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
    follow_links: bool = False,
    root: str | Path | None = None,
) -> Dataset:
    """Images in a fixed order, prepared as a protocol says, for `tokbench.evaluate`.

    data: a dataset's name, the path of a folder, zip, tar, .npz or Parquet file, or a pattern of paths, as after
    `--data` on the command line; or images in memory: a torch Dataset, a DataLoader, a tensor (N, 3, H, W), or an
    iterable. Items are tensors (3, H, W) or batches (B, 3, H, W), float in [0, 1] or uint8, or RGB images of Pillow; of
    a tuple or list, as (image, label), the first entry is the image. Floats are rounded to 8 bits, as in image files.

    Images in memory are read here, once, and kept as uint8: 10,000 of 256 x 256 px take 2 GB. An iterator that can be
    read only once thus serves any number of evaluations.

    protocol: its name, the path of its .toml, or a `tokbench.Protocol`. size: the short side is scaled to it and the
    centre is cut, in pixels; None for images that are all of one size, which stay as they are. limit: only the first
    images. split: train, validation or test, of a path that holds several. follow_links: read symbolic links that leave
    a folder. root: the folder that holds adapters/ and datasets/.

    Raises UsageError for unknown names and wrong arguments, DataError for images that cannot be used.

    >>> import torch, tokbench
    >>> dataset = tokbench.open_dataset(torch.rand(4, 3, 32, 32))
    >>> len(dataset), dataset.name.startswith("images-")
    (4, True)
    """
    rules = protocol if isinstance(protocol, Protocol) else load_protocol(str(protocol))
    if isinstance(data, str | Path):
        place = None if root is None else Path(root)
        return dataset.open_dataset(str(data), rules, size, limit, place, follow_links, split)
    if split is not None or follow_links:
        raise UsageError("split and follow_links are for data that are opened by their path")
    for name, value in (("limit", limit), ("size", size)):
        if value is not None and value < 1:
            raise UsageError(f"{name} must be at least 1, it is {value}")
    if size is not None:
        check_library(rules)
    source = Pixels(_read(data, size, limit))
    made = Dataset(f"{_name_of(data)}-{source.sha256[:6]}", source, rules, size)
    made.check_sizes()
    return made


def _name_of(data: object) -> str:
    held = data.dataset if isinstance(data, DataLoader) else data
    return slug(type(held).__name__) if isinstance(held, torch.utils.data.Dataset) else "images"


def _read(data: Any, size: int | None, limit: int | None) -> list[np.ndarray]:
    """The first `limit` images. Raises DataError where there are none, or where they are of several sizes and none is
    given; UsageError where `data` is none of the accepted forms."""
    if isinstance(data, DataLoader) and isinstance(data.sampler, RandomSampler):
        _LOG.warning(
            "the DataLoader shuffles, so each call evaluates its images in another order: their features are computed "
            "again, and results cannot be compared; give shuffle=False"
        )
    images: list[np.ndarray] = []
    for item in _items(data):
        for image in _pixels(item, len(images)):
            if images and size is None and image.shape != images[0].shape:
                (height, width), (other_height, other_width) = images[0].shape[:2], image.shape[:2]
                raise DataError(
                    f"the images are of several sizes (image 0 is {width}x{height}, image {len(images)} is "
                    f"{other_width}x{other_height}); give size=S to bring them all to S x S"
                )
            images.append(image)
            if len(images) == limit:
                return images
    if not images:
        raise DataError("there are no images in the data; an iterator can be read only once")
    return images


def _items(data: Any) -> Iterator[Any]:
    """What a torch Dataset, DataLoader, tensor or iterable gives, one after the other."""
    if isinstance(data, Tensor):
        if data.dim() != 4:
            raise UsageError(f"a tensor of images has the shape (N, 3, H, W), this one {tuple(data.shape)}")
        return iter((data,))
    if isinstance(data, Mapping) or not (isinstance(data, Iterable) or hasattr(data, "__getitem__")):
        raise UsageError(
            f"data of type {type(data).__name__} cannot be read; give a dataset's name, a path, a torch Dataset, a "
            "DataLoader, a tensor (N, 3, H, W), or an iterable of images"
        )
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return (data[position] for position in range(len(data)))  # a torch Dataset need not mark its end
    return iter(data)


def _pixels(item: Any, position: int) -> Iterator[np.ndarray]:
    """The images of one item, uint8 (H, W, 3). `position`: of the first. Raises DataError that names the image."""
    held = item[0] if isinstance(item, tuple | list) and item else item
    if isinstance(held, Image.Image):
        if held.mode != "RGB":
            raise DataError(f"image {position} has Pillow's mode {held.mode}; convert it with image.convert('RGB')")
        yield np.array(held)
        return
    if not isinstance(held, Tensor):
        keys = f" with the keys {', '.join(map(str, held))}" if isinstance(held, Mapping) else ""
        raise DataError(f"item {position} of the data is of type {type(held).__name__}{keys}; {_ACCEPTED}")
    batch = held.detach().cpu()
    batch = batch[None] if batch.dim() == 3 else batch
    if batch.dim() != 4 or batch.shape[1] != 3 or 0 in batch.shape[2:]:
        raise DataError(f"image {position} has the shape {tuple(held.shape)}; {_ACCEPTED}")
    if batch.is_floating_point():
        batch = batch.float()
        for offset, image in enumerate(batch):
            low, high = float(image.min()), float(image.max())
            if not (low >= -_OUTSIDE and high <= 1 + _OUTSIDE):  # also where they are NaN
                raise DataError(
                    f"image {position + offset} holds values from {low:g} to {high:g}; floats must lie in [0, 1]: "
                    "(x + 1) / 2 of images in [-1, 1], x / 255 of levels"
                )
        batch = to_uint8(batch)
    elif batch.dtype != torch.uint8:
        raise DataError(f"image {position} is a tensor of {batch.dtype}; {_ACCEPTED}")
    yield from batch.permute(0, 2, 3, 1).contiguous().numpy().copy()
