"""Modality: what the evaluation loop needs to know about one kind of data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from tokbench.data.stream import ImageStream
from tokbench.errors import NotApplicable
from tokbench.metric_names import ITEMS
from tokbench.metric_names import Modality as ModalityName
from tokbench.metrics.base import Metric
from tokbench.tokenizers.spec import TokenizerSpec


class Plan(Protocol):
    """How items of one shape meet the size rules of a tokenizer (`tokbench.tokenizers.tiling.TilingPlan` for images).

    tiles: the number of pieces per item.
    """

    @property
    def tiles(self) -> int: ...

    def cut(self, images: Tensor) -> Tensor:
        """Map items (B, ...) to pieces (B * tiles, ...). The pieces of an item are consecutive."""

    def join(self, tiles: Tensor) -> Tensor:
        """Map pieces back to items, without padding. This is the inverse of `cut`."""

    def describe(self) -> str | None:
        """Return a note for the result about padding and pieces, or None if items are used unchanged."""


@dataclass(frozen=True)
class PaddedPlan:
    """Items are passed whole, padded at the end of each axis.

    shape, padded: the shape of an item before and after. fill: the value of the padding, or None to repeat the last
    entry of each axis.
    """

    shape: tuple[int, ...]
    padded: tuple[int, ...]
    fill: float | None = None
    tiles: int = 1

    def cut(self, images: Tensor) -> Tensor:
        for axis, (length, padded) in enumerate(zip(self.shape, self.padded, strict=True), 1):
            if padded > length:
                index = torch.arange(padded, device=images.device).clamp(max=length - 1)
                images = images.index_select(axis, index)
                if self.fill is not None:
                    images.narrow(axis, length, padded - length).fill_(self.fill)
        return images

    def join(self, tiles: Tensor) -> Tensor:
        for axis, length in enumerate(self.shape, 1):
            tiles = tiles.narrow(axis, 0, length)
        return tiles.contiguous()

    def describe(self) -> str | None:
        if self.padded == self.shape:
            return None
        before, after = ("x".join(map(str, shape)) for shape in (self.shape, self.padded))
        return f"padded from {before} to {after}"


class Modality(ABC):
    """One kind of data. name: its name in specs and results. ranked_by: the numbers by which the page chooses the worst
    items.

    The values of all items lie in [0, 1], and the loop maps them to the range that a tokenizer declares.
    """

    name: ClassVar[ModalityName]
    ranked_by: ClassVar[tuple[str, ...]]

    @property
    def noun(self) -> str:
        """One item, for messages."""
        return ITEMS[self.name].noun

    def check(self, spec: TokenizerSpec) -> None:
        """Raise NotApplicable if a tokenizer does not take this kind of data."""
        if self.name not in spec.modalities:
            takes = ", ".join(spec.modalities)
            raise NotApplicable(f"{spec.name}: it takes data of the kind {takes}, but these are {self.noun}s")

    @abstractmethod
    def plan(self, spec: TokenizerSpec, shape: Sequence[int]) -> Plan:
        """Return how items of this shape are passed to a tokenizer."""

    @abstractmethod
    def describe_data(self, stream: ImageStream) -> dict[str, Any]:
        """Return what a result records about the shape of the items: `width` and `height`, and `extent`, a part of the
        result's file name, where these do not identify it."""

    @abstractmethod
    def output_checks(self, spec: TokenizerSpec, paired: bool, degraded: bool) -> Metric:
        """Return the checks of the outputs, which give warnings instead of numbers.

        paired: whether each output belongs to one reference. degraded: whether the model got degraded references.
        """

    @abstractmethod
    def picture(self, items: Tensor) -> Tensor:
        """Return images (B, 3, h, w) in [0, 1] that show items (B, ...) on the page."""

    def recording(self, item: Tensor, side: int | None) -> bytes | None:
        """Return an audio file of one item for the player of the page, or None if it has no sound. side: of the
        dataset."""
        return None


def round_up(length: int, multiple: int) -> int:
    """Return the smallest multiple that is not below `length`."""
    return -(-length // multiple) * multiple
