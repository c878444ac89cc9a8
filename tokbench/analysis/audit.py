"""The protocol audit: one tokenizer's metrics under every evaluation convention, in one pass over the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import torch
from PIL import Image

from tokbench.data.dataset import Dataset
from tokbench.data.loader import ImageLoader
from tokbench.data.sources.base import Source
from tokbench.data.stream import PairedBatch, ReadLog, whole_chunks
from tokbench.errors import AdapterError, MetricUnavailable, TokbenchError
from tokbench.evaluation.config import Context, EvalConfig
from tokbench.evaluation.evaluate import bind_adapter
from tokbench.evaluation.metric_set import MetricValues
from tokbench.evaluation.reconstruct import RunSettings, reconstruct
from tokbench.evaluation.steps import plain_step
from tokbench.extractors.pool import ExtractorPool
from tokbench.metric_names import METRICS
from tokbench.metrics.base import Metric
from tokbench.metrics.batch import Batch, DerivedCache
from tokbench.metrics.image_format import roundtrip_format
from tokbench.metrics.registry import MetricContext, create_metric
from tokbench.protocol.protocol import TOKBENCH, Protocol, load_protocol, protocols
from tokbench.stats.split_half import SplitHalves
from tokbench.stats.spread import Spread
from tokbench.timing import exact_kernels, trim_heap
from tokbench.tokenizers.registry import LoadedAdapter

DEFAULT_METRICS = ("psnr", "ssim", "lpips", "rfid", "rfid_768")
"""Metrics that an audit computes by default."""


@dataclass(frozen=True)
class ProtocolVariation:
    """One row of the audit: a title, and the protocol to evaluate. named: whether tokbench ships the protocol."""

    title: str
    protocol: Protocol
    named: bool = False
    pixels: bool = False
    """Whether only the preparation of the images differs, which has no effect if they already have the target size."""


@dataclass
class Row:
    """The values under one choice.

    numbers: metric entries by requested metric (`lpips` also covers `lpips_vgg`). replicates: split-half values of the
    distances. missing: why a metric has no value, without paths of this machine; notes: the full reasons. same_pixels:
    whether the tokenizer's input is identical to that under the default protocol.
    """

    choice: ProtocolVariation
    numbers: dict[str, dict[str, Any]] = field(default_factory=dict)
    replicates: dict[str, Spread] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    same_pixels: bool = False


def choices(default: Protocol = TOKBENCH) -> list[ProtocolVariation]:
    """Return the default protocol, each choice varied separately, then every protocol that tokbench ships."""
    varied: list[tuple[str, dict[str, Any]]] = [
        ("crop: torchvision's Resize and CenterCrop", {"crop": "torchvision"}),
        ("crop: ADM's, box filter first", {"crop": "adm"}),
        ("filter: Lanczos", {"filter": "lanczos"}),
        ("filter: bilinear", {"filter": "bilinear"}),
        ("filter: area", {"filter": "area"}),
        ("library: OpenCV (no antialias)", {"library": "opencv", "antialias": False}),
        ("library: tensors", {"library": "tensor"}),
        ("library: tensors, no antialias", {"library": "tensor", "antialias": False}),
        ("rounding: truncated", {"rounding": "truncate"}),
        ("rounding: none", {"rounding": "none"}),
        ("storage: JPEG, quality 95", {"storage": "jpeg.q95"}),
        ("storage: JPEG, quality 75", {"storage": "jpeg.q75"}),
        ("reference: the original files", {"reference": "original"}),
        ("PSNR: of the pooled error", {"psnr__average": "pooled"}),
        ("SSIM: uniform 7x7 window, sample covariance", {"ssim__window": "uniform", "ssim__covariance": "sample"}),
        ("SSIM: reflected border", {"ssim__border": "reflect"}),
        ("SSIM: range 2 for images in [0, 1]", {"ssim__range": 510.0}),
        ("LPIPS: VGG-16", {"lpips__net": "vgg"}),
        ("LPIPS: images in [0, 1], not [-1, 1]", {"lpips__input": "unsigned"}),
        ("FID input: half-pixel bilinear", {"features__input": "half-pixel"}),
        ("FID input: clean (Pillow bicubic)", {"features__input": "clean"}),
    ]
    rows = [ProtocolVariation(f"{default.name} (the default)", default)]
    preparation = {"crop", "filter", "library", "antialias"}
    rows += [
        ProtocolVariation(
            title, default.with_changes(f"{default.name}, {title}", **changes), pixels=set(changes) <= preparation
        )
        for title, changes in varied
    ]
    named = [load_protocol(name) for name in protocols() if name != default.name]
    return rows + [ProtocolVariation(protocol.name, protocol, named=True) for protocol in named]


@dataclass
class _SharedMetric:
    """One metric under one set of settings, shared by all rows with equal settings. updated: whether it saw a batch."""

    protocol: Protocol
    metric: Metric | None = None
    missing: MetricUnavailable | None = None
    updated: bool = False
    numbers: MetricValues = field(default_factory=MetricValues)


class _CachedSource(Source):
    """A source that caches the last `window` decoded images, for several datasets that read it in parallel."""

    def __init__(self, source: Source, window: int) -> None:
        super().__init__()
        self._source, self._window, self._lock = source, window, Lock()
        self._cache: dict[int, Image.Image] = {}
        self.names = source.names

    def read(self, position: int) -> bytes:
        return self._source.read(position)

    def listing(self) -> list[tuple[str, int]]:
        return self._source.listing()

    def size(self, position: int) -> tuple[int, int]:
        return self._source.size(position)

    def open(self, position: int) -> Image.Image:
        with self._lock:  # datasets read in threads
            if position not in self._cache:
                self._cache[position] = self._source.open(position)
                while len(self._cache) > self._window:
                    del self._cache[next(iter(self._cache))]
            return self._cache[position]


class _View:
    """The dataset under one preparation.

    error: why it cannot be prepared, or empty. same: whether its pixels equal those of the default protocol.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.error, self.same = dataset, "", True

    def matching(self, default: PairedBatch) -> PairedBatch | None:
        """Return the images of a default batch under this preparation.

        Returns None and sets `error` if one of them cannot be prepared: a row must cover the same images as the
        default to be comparable with it.
        """
        if self.error:
            return None
        positions = default.index.tolist()
        try:
            read = list(ImageLoader(self.dataset, [positions]))
        except TokbenchError as error:
            self.error = str(error)
            return None
        seen = self.dataset.seen
        if bad := [position for position in positions if position in seen.unreadable]:
            reason = seen.unreadable[bad[0]]
            if seen.digests:
                self.error = f"some images cannot be prepared in this way: {reason}"
            else:  # it holds for all images, so the name of the first one would mislead
                self.error = reason.removeprefix(f"{self.dataset.source.names[bad[0]]}: ")
            return None
        return read[0]


def audit(
    adapter: LoadedAdapter,
    dataset: Dataset,
    config: EvalConfig,
    context: Context | None = None,
    *,
    claimed: str | None = None,
) -> list[Row]:
    """Evaluate an adapter under every choice of `choices`; return one row per choice, the default first.

    dataset: the images and the default protocol. config: its task is ignored, because an audit always reconstructs.
    context: only its networks, allow_download and progress are used. claimed: a metric that must be available under
    the default protocol. Each image file is decoded once, and each distinct preparation of it is reconstructed once.

    Raises DataError if no image could be read, AdapterError if the adapter fails, and MetricUnavailable if `claimed`
    cannot be computed under the default protocol.
    """
    context = context or Context()
    networks, names, batch_size = context.networks_for(config), config.metrics, config.batch_size
    rows = [Row(choice) for choice in choices(dataset.protocol)]
    shared_metrics: dict[tuple[str, str], _SharedMetric] = {}
    for row in rows:
        for name in names:
            key = _key(name, row.choice.protocol)
            if key not in shared_metrics:
                shared_metrics[key] = _make(key[0], row.choice.protocol, networks, adapter, config)
    if claimed and (missing := shared_metrics[_key(claimed, dataset.protocol)].missing):
        raise missing  # fail before the pass, not after it
    chunk = whole_chunks(batch_size)
    cached = _CachedSource(dataset.source, 2 * chunk)
    views: dict[tuple[Any, ...], _View] = {}
    for row in rows:
        protocol = row.choice.protocol
        if (key := _view_key(protocol)) not in views:
            views[key] = _View(replace(dataset, source=cached, protocol=protocol, shape=None, seen=ReadLog()))
    default_key = _view_key(dataset.protocol)
    if error := bind_adapter(adapter, dataset, networks.device):
        raise TokbenchError(error)
    done = 0
    with exact_kernels():
        for default in views[default_key].dataset.batches(chunk):
            prepared = {default_key: default}
            prepared |= {
                k: some for k, v in views.items() if k != default_key and (some := v.matching(default)) is not None
            }
            batches: dict[tuple[Any, ...], Batch] = {}
            for key, images in prepared.items():
                batches[key] = _reconstruct(
                    adapter, images, batches, RunSettings(networks.device, batch_size, config.seed)
                )
                views[key].same &= torch.equal(images.reference, prepared[default_key].reference)
            _update(shared_metrics, batches)
            trim_heap()
            done += len(prepared[default_key].names)
            context.progress("images", done, len(dataset))
    read = views[default_key].dataset
    read.refuse_empty()
    dataset.seen, dataset.shape = read.seen, read.shape
    halves = SplitHalves(read.sha256, len(dataset) - len(dataset.unreadable))
    for position, shared in enumerate(shared_metrics.values()):
        _finish(shared, config.seed, halves)
        context.progress("intervals", position + 1, len(shared_metrics))
    for row in rows:
        _fill(row, names, shared_metrics, views)
    return rows


def _view_key(protocol: Protocol) -> tuple[Any, ...]:
    """Return what identifies the prepared images of a protocol."""
    return (*protocol.preparation, protocol.reference == "original")


def _key(name: str, protocol: Protocol) -> tuple[str, str]:
    """Return the metric and a hash of all protocol fields that it depends on."""
    if name == "lpips" and protocol.lpips.net == "vgg":
        name = "lpips_vgg"
    relevant = ("crop", "filter", "library", "antialias", "rounding", "storage", *METRICS[name].reads)
    return name, replace(TOKBENCH, **{key: getattr(protocol, key) for key in relevant}).sha256


def _make(
    name: str,
    protocol: Protocol,
    networks: ExtractorPool,
    adapter: LoadedAdapter,
    config: EvalConfig,
) -> _SharedMetric:
    """Create one metric under a protocol; `missing` holds the reason if it is unavailable."""
    shared = _SharedMetric(protocol)
    statistics = config.statistics if protocol.reference == "statistics" else None
    try:
        shared.metric = create_metric(
            name, MetricContext(networks, adapter.model, protocol, config.batch_size, statistics)
        )
    except MetricUnavailable as error:
        shared.missing = error
    return shared


def _reconstruct(
    adapter: LoadedAdapter, images: PairedBatch, earlier: dict[tuple[Any, ...], Batch], settings: RunSettings
) -> Batch:
    """Return the reconstructed batch of these images, reusing an earlier batch with identical pixels."""
    for batch in earlier.values():
        if batch.reference is not None and torch.equal(batch.reference, images.reference):
            return replace(batch, original=images.original) if images.original else batch
    try:
        return reconstruct(adapter.model, images, plain_step(adapter.model), settings, DerivedCache())
    except TokbenchError:
        raise
    except Exception as error:  # third-party code may raise anything
        cause = f"{type(error).__name__}: {str(error)[:300]}"
        raise AdapterError(f"{adapter.name} failed on the batch that starts with {images.names[0]}: {cause}") from error


def _update(shared_metrics: dict[tuple[str, str], _SharedMetric], batches: dict[tuple[Any, ...], Batch]) -> None:
    """Update every metric with the batch of its preparation."""
    stored: dict[tuple[Any, ...], Batch] = {}
    for shared in shared_metrics.values():
        protocol = shared.protocol
        if shared.metric is None or (batch := batches.get(_view_key(protocol))) is None:
            continue
        jpeg = protocol.storage.startswith("jpeg") and protocol.crop != "pad"  # see `roundtrip_format`
        key = (id(batch), protocol.storage, protocol.rounding) if jpeg else (id(batch),)
        if key not in stored:
            stored[key] = roundtrip_format(batch, protocol)
        try:
            shared.metric.update(stored[key])
            shared.updated = True
        except MetricUnavailable as error:
            shared.metric, shared.missing = None, error


def _finish(shared: _SharedMetric, seed: int, halves: SplitHalves) -> None:
    """Compute the values and intervals of a metric."""
    if shared.metric is None or not shared.updated:  # its images could not be prepared; the view holds the error
        return
    try:
        shared.numbers.add_metric(shared.metric, seed, halves)
    except MetricUnavailable as error:
        shared.missing = error
    shared.metric = None  # releases its features


def _fill(
    row: Row,
    names: Sequence[str],
    shared_metrics: dict[tuple[str, str], _SharedMetric],
    views: dict[tuple[Any, ...], _View],
) -> None:
    """Fill a row with the values, or the reasons for missing ones, of its metrics."""
    view = views[_view_key(row.choice.protocol)]
    row.same_pixels = view.same and not view.error
    for name in names:
        own, digest = _key(name, row.choice.protocol)
        shared = shared_metrics[own, digest]
        if error := view.error or views[_view_key(shared.protocol)].error:
            row.missing[name] = error
        elif shared.missing:
            row.missing[name] = shared.missing.public_reason
            row.notes.append(f"{own} ({row.choice.title}): {shared.missing}")
        elif own in shared.numbers.values:
            row.numbers[name] = shared.numbers.values[own]
            if own in shared.numbers.replicates:
                row.replicates[name] = shared.numbers.replicates[own]
