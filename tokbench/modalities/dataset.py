"""MediaDataset: the dataset of items that are no images."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tokbench.data.dataset import Dataset
from tokbench.data.loader import PreparedImage
from tokbench.errors import UsageError
from tokbench.protocol.rounding import from_uint8


@dataclass(frozen=True)
class Item:
    """One prepared item.

    values: the item in its final shape: levels as uint8, or float32 values in [0, 1]. extra: further arrays by name.
    upscaled: whether the source had a lower resolution.
    """

    values: np.ndarray
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    upscaled: bool = False


class MediaDataset(Dataset):
    """Items of one modality in a fixed order under one protocol. A subclass prepares single items.

    Raises UsageError for a protocol that stores images in files or compares with whole originals.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        rules = self.protocol
        if rules.storage.startswith("jpeg") or rules.reference != "crop" or rules.crop == "pad":
            raise UsageError(f"protocol {rules.name} is for images; {self.name} has data of the kind {self.modality}")

    @abstractmethod
    def item(self, position: int) -> Item:
        """Return one item. Raises UnreadableImage."""

    def check_sizes(self) -> None:
        """Items are brought to one shape by the protocol, so that no headers need to be read."""

    def shape_of(self, pixels: np.ndarray) -> tuple[int, ...]:
        return pixels.shape

    def collate(self, pixels: np.ndarray) -> tuple[Tensor, Tensor | None]:
        values = torch.from_numpy(pixels)
        return (from_uint8(values), values) if values.dtype == torch.uint8 else (values, None)

    def _prepared(self, position: int) -> PreparedImage:
        item = self.item(position)
        digest = hashlib.sha256()
        for name, array in (("", item.values), *sorted(item.extra.items())):
            digest.update(f"{name}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return PreparedImage(item.values, None, None, digest.hexdigest(), item.upscaled, extra=item.extra)
