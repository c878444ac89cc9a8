"""Reads the training data of a dataset into memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tokbench.data.dataset import Dataset
from tokbench.data.sources.synthetic import SyntheticSource
from tokbench.data.synthetic.raster import Box
from tokbench.data.vocabulary import encode_captions
from tokbench.errors import DataError
from tokbench.metric_names import ITEMS
from tokbench.nn.trainable import TrainingData, padded_boxes

_LOG = logging.getLogger("tokbench")


def load_training_data(
    dataset: Dataset, progress: Callable[[int, int], None] = lambda done, total: None
) -> TrainingData:
    """Return all items of a dataset, and their labels, captions, boxes and masks if it has any. Images become uint8
    levels; items of other modalities that are no levels, such as waveforms, stay float32.

    The images are sorted by name, so that their order does not depend on how they are stored. Unreadable images are
    left out with a warning. Raises DataError if no image can be read.
    """
    names, captions, reader = list[str](), list[str](), dataset.batches(256)
    boxes: list[list[Box]] = []
    by_name = sorted(range(len(dataset)), key=dataset.names.__getitem__)
    pixels, masks = _SortedItems(by_name), _SortedItems(by_name)
    for images in reader:
        reader.prefetch()
        values = images.reference if images.levels is None else images.levels
        if images.levels is None and dataset.modality == "image":
            values = (values * 255).round().to(torch.uint8)
        pixels.write(images.index, values)
        names += images.names
        captions += images.captions or []
        if isinstance(dataset.source, SyntheticSource):
            boxes += [dataset.source.boxes(position) for position in images.index.tolist()]
        if "masks" in images.extra:
            masks.write(images.index, images.extra["masks"])
        progress(reader.done, reader.total)
    if not names:
        raise DataError(f"{dataset.name}: no {ITEMS[dataset.modality].noun} could be read")
    for name, reason in dataset.unreadable:
        _LOG.warning("left out %s: %s", name, reason)
    order = sorted(range(len(names)), key=names.__getitem__)
    known = dataset.source.labels()
    labels = None if known is None else torch.tensor([known[names[place]] for place in order])
    encoded = encode_captions(captions)[order] if captions else None
    padded = padded_boxes(boxes)[order] if any(boxes) else None
    items = pixels.result()
    assert items is not None
    return TrainingData(items, labels, captions=encoded, boxes=padded, masks=masks.result())


class _SortedItems:
    """Items that are written in any order and read in a sorted one.

    They are written into one tensor at their final places, since they may take most of the memory. by_name: the
    positions of all items in the sorted order.
    """

    def __init__(self, by_name: Sequence[int]) -> None:
        self._places = torch.empty(len(by_name), dtype=torch.long)
        self._places[torch.tensor(by_name)] = torch.arange(len(by_name))
        self._written = torch.zeros(len(by_name), dtype=torch.bool)
        self._values: Tensor | None = None

    def write(self, positions: Tensor, values: Tensor) -> None:
        """Write the items (B, ...) at positions, int64 (B,)."""
        if self._values is None:
            self._values = values.new_empty(len(self._places), *values.shape[1:])
        places = self._places[positions]
        self._values[places], self._written[places] = values, True

    def result(self) -> Tensor | None:
        """Return the items that were written, or None if there are none."""
        return self._values if self._values is None or self._written.all() else self._values[self._written]
