"""The statistics of a dataset's references, computed in one pass through one network without a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tokbench.data.dataset import Dataset
from tokbench.errors import UsageError
from tokbench.extractors.network import CHUNK, FeatureExtractor
from tokbench.metrics.batch import Batch, Side
from tokbench.metrics.fid_statistics import FidStatistics
from tokbench.stats.moments import RunningMoments
from tokbench.timing import exact_kernels


def measure(
    dataset: Dataset, network: FeatureExtractor, layers: Sequence[str], progress: Callable[[str, int, int], None]
) -> FidStatistics:
    """Return mean and covariance (divided by N - 1, float64) of the features of all images, prepared according to
    the protocol.

    Only sums are kept, so memory does not grow with N. Raises DataError where no image could be read, MissingWeights
    where the network's file does not contain a layer, UsageError where a layer's features are not vectors.
    """
    for layer in layers:
        network.request_layer(layer)
    side: Side = "original" if dataset.protocol.reference == "original" else "reference"
    rounding = dataset.protocol.rounding_of(dataset.protocol.features)
    sums: dict[str, RunningMoments] = {layer: RunningMoments() for layer in layers}
    count = 0
    with exact_kernels():
        reader = dataset.batches(CHUNK)
        for images in reader:
            reader.prefetch()
            batch = Batch(images.index, images.reference, original=images.original)
            features = batch.features(network, side, rounding)
            for layer in layers:
                if features[layer].dim() != 2:
                    raise UsageError(f"the features of layer {layer} of {network.name} are not vectors")
                sums[layer].add(features[layer].numpy())
            count += len(images.names)
            progress("images", count, len(dataset))
    dataset.refuse_empty()
    facts = network.describe()
    height, width = dataset.shape if dataset.shape and side == "reference" else (None, None)  # file sizes may differ
    return FidStatistics(
        {layer: running.moments() for layer, running in sums.items()},
        network=network.name,
        input=facts.get("input"),
        precision=network.precision,
        weights=network.sha256,
        count=count,
        data=dataset.sha256,
        dataset=dataset.name,
        sampling=dataset.sampling,
        protocol=dataset.protocol.name,
        protocol_sha256=dataset.protocol.sha256,
        width=width,
        height=height,
        preparation=dataset.protocol.reference_preparation,
    )
