"""The statistics of a data set's references: one pass through one network, no tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tokbench.batch import Batch, Side
from tokbench.dataset import Dataset
from tokbench.errors import UsageError
from tokbench.evaluate import exact_kernels, refuse_empty
from tokbench.readers.network import CHUNK, Network
from tokbench.statistics import Moments, Statistics


def measure(
    dataset: Dataset, network: Network, layers: Sequence[str], progress: Callable[[str, int, int], None]
) -> Statistics:
    """Mean and covariance (divided by N - 1, float64) of the features of all images, prepared as the protocol says.

    Sums are kept, not features, so memory does not grow with N. Raises DataError where not one image could be read,
    MissingWeights where the network's file does not reach a layer.
    """
    for layer in layers:
        network.want(layer)
    side: Side = "original" if dataset.protocol.reference == "original" else "reference"
    rounding = dataset.protocol.rounding_of(dataset.protocol.features)
    sums: dict[str, _Sums] = {layer: _Sums() for layer in layers}
    count = 0
    with exact_kernels():
        for images in dataset.batches(CHUNK):
            batch = Batch(images.index, images.reference, original=images.original)
            features = batch.features(network, side, rounding)
            for layer in layers:
                if features[layer].dim() != 2:
                    raise UsageError(f"layer {layer} of {network.name} is no vector of features")
                sums[layer].add(features[layer].numpy().astype(np.float64))
            count += len(images.names)
            progress("images", count, len(dataset))
    refuse_empty(dataset)
    told = network.told()
    return Statistics(
        {layer: made.moments() for layer, made in sums.items()},
        network=network.name,
        input=told.get("input"),
        precision="float32",
        weights=network.sha256,
        count=count,
        data=dataset.sha256,
        dataset=dataset.name,
        protocol=dataset.protocol.name,
        protocol_sha256=dataset.protocol.sha256,
    )


class _Sums:
    """Sums of vectors and of their products, around the first vector so that little is lost in their difference."""

    def __init__(self) -> None:
        self._count, self._origin = 0, np.zeros(())
        self._sum, self._products = np.zeros(()), np.zeros(())

    def add(self, rows: np.ndarray) -> None:
        if not self._count:
            self._origin = rows[0]
        shifted = rows - self._origin
        self._count += len(rows)
        self._sum = self._sum + shifted.sum(axis=0)
        self._products = self._products + shifted.T @ shifted

    def moments(self) -> Moments:
        mean = self._sum / self._count
        spread = self._products - self._count * np.outer(mean, mean)
        return self._origin + mean, spread / max(self._count - 1, 1)
