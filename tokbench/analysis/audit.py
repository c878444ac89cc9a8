"""The audit: one tokenizer's numbers under every convention, from one pass over the images."""

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
from tokbench.evaluation.config import Progress
from tokbench.evaluation.evaluate import make_ready
from tokbench.evaluation.metric_set import MetricValues
from tokbench.evaluation.reconstruct import RunSettings, reconstruct
from tokbench.evaluation.steps import plain_step
from tokbench.extractors.pool import ExtractorPool
from tokbench.metric_names import METRICS
from tokbench.metrics.base import Metric
from tokbench.metrics.batch import Batch, DerivedCache
from tokbench.metrics.fid_statistics import FidStatistics
from tokbench.metrics.image_format import roundtrip_format
from tokbench.metrics.registry import MetricContext, create_metric
from tokbench.protocol.protocol import TOKBENCH, Protocol, load_protocol, protocols
from tokbench.stats.split_half import SplitHalves
from tokbench.stats.spread import Spread
from tokbench.timing import exact_kernels, trim_heap
from tokbench.tokenizers.registry import LoadedAdapter

PRESENT = ("psnr", "ssim", "lpips", "rfid", "rfid_768")
"""What an audit shows unless it is told otherwise."""


@dataclass(frozen=True)
class ProtocolVariation:
    """One row: what differs from the default, and the protocol that says so."""

    title: str
    protocol: Protocol
    named: bool = False
    pixels: bool = False
    """Whether it is about the tokenizer's input alone, and so nothing where all images have the size already."""


@dataclass
class Row:
    """What became of one choice. numbers: by the metric that was asked for (`lpips` stands for `lpips_vgg` too).

    replicates: of the distances. missing: why a metric has no number, as a file may say it; notes: the same in full,
    with the paths of this machine. same_pixels: the tokenizer got the very pixels that it gets under the default.
    """

    choice: ProtocolVariation
    numbers: dict[str, dict[str, Any]] = field(default_factory=dict)
    replicates: dict[str, Spread] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    same_pixels: bool = False


def choices(default: Protocol = TOKBENCH) -> list[ProtocolVariation]:
    """The default, each choice varied by itself, then every protocol that tokbench ships."""
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
    about_pixels = {"crop", "filter", "library", "antialias"}
    rows += [
        ProtocolVariation(
            title, default.with_changes(f"{default.name}, {title}", **changes), pixels=set(changes) <= about_pixels
        )
        for title, changes in varied
    ]
    named = [load_protocol(name) for name in protocols() if name != default.name]
    return rows + [ProtocolVariation(protocol.name, protocol, named=True) for protocol in named]


@dataclass
class _Measure:
    """One metric under one set of settings; rows that agree in all that it reads share it."""

    protocol: Protocol
    metric: Metric | None = None
    missing: MetricUnavailable | None = None
    fed: bool = False
    numbers: MetricValues = field(default_factory=MetricValues)


class _Shared(Source):
    """A source whose last images are kept decoded, for several datasets that walk through it side by side."""

    def __init__(self, source: Source, window: int) -> None:
        super().__init__()
        self._source, self._window, self._lock = source, window, Lock()
        self._held: dict[int, Image.Image] = {}
        self.names = source.names

    def read(self, position: int) -> bytes:
        return self._source.read(position)

    def listing(self) -> list[tuple[str, int]]:
        return self._source.listing()

    def size(self, position: int) -> tuple[int, int]:
        return self._source.size(position)

    def open(self, position: int) -> Image.Image:
        with self._lock:  # views read in threads
            if position not in self._held:
                self._held[position] = self._source.open(position)
                while len(self._held) > self._window:
                    del self._held[next(iter(self._held))]
            return self._held[position]


class _View:
    """The images as one preparation gives them; `error` where it cannot."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.error, self.same = dataset, "", True

    def like(self, default: PairedBatch) -> PairedBatch | None:
        """The same images as the default preparation gave. None, with an error from then on, where one of them cannot
        be prepared so: a row over other images than the default's could not be compared with it."""
        if self.error:
            return None
        positions = default.index.tolist()
        try:
            read = list(ImageLoader(self.dataset, [positions]))
        except TokbenchError as error:
            self.error = str(error)
            return None
        seen = self.dataset.seen
        if bad := [position for position in positions if position in seen.bad]:
            reason = seen.bad[bad[0]]
            if seen.digests:
                self.error = f"not all of the images can be prepared so: {reason}"
            else:  # of all of them the same is true, and the name of the first would mislead
                self.error = reason.removeprefix(f"{self.dataset.source.names[bad[0]]}: ")
            return None
        return read[0]


def audit(
    adapter: LoadedAdapter,
    dataset: Dataset,
    names: Sequence[str] = PRESENT,
    *,
    claimed: str | None = None,
    networks: ExtractorPool | None = None,
    statistics: FidStatistics | None = None,
    batch_size: int = 16,
    seed: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> list[Row]:
    """Every choice's numbers. Each image file is decoded once, each prepared image reconstructed once.

    `dataset` gives the images and the default protocol. Raises DataError where not one image could be read,
    AdapterError where the adapter fails, and CannotMeasure where `claimed`, a metric, cannot be had under the default.
    """
    networks = networks or ExtractorPool()
    rows = [Row(choice) for choice in choices(dataset.protocol)]
    measures: dict[tuple[str, str], _Measure] = {}
    for row in rows:
        for name in names:
            key = _key(name, row.choice.protocol)
            if key not in measures:
                measures[key] = _make(key[0], row.choice.protocol, networks, adapter, batch_size, statistics)
    if claimed and (missing := measures[_key(claimed, dataset.protocol)].missing):
        raise missing  # before the pass, not after it
    chunk = whole_chunks(batch_size)
    shared = _Shared(dataset.source, 2 * chunk)
    views: dict[tuple[Any, ...], _View] = {}
    for row in rows:
        protocol = row.choice.protocol
        if (key := _view_key(protocol)) not in views:
            views[key] = _View(replace(dataset, source=shared, protocol=protocol, shape=None, seen=ReadLog()))
    home = _view_key(dataset.protocol)
    if error := make_ready(adapter, dataset, networks.device):
        raise TokbenchError(error)
    done = 0
    with exact_kernels():
        for default in views[home].dataset.batches(chunk):
            given = {home: default}
            given |= {k: some for k, v in views.items() if k != home and (some := v.like(default)) is not None}
            made: dict[tuple[Any, ...], Batch] = {}
            for key, images in given.items():
                made[key] = _reconstruct(adapter, images, made, RunSettings(networks.device, batch_size, seed))
                views[key].same &= torch.equal(images.reference, given[home].reference)
            _feed(measures, made)
            trim_heap()
            done += len(given[home].names)
            progress("images", done, len(dataset))
    read = views[home].dataset
    read.refuse_empty()
    dataset.seen, dataset.shape = read.seen, read.shape
    halves = SplitHalves(read.sha256, len(dataset) - len(dataset.bad))
    for position, measure in enumerate(measures.values()):
        _finish(measure, seed, halves)
        progress("intervals", position + 1, len(measures))
    for row in rows:
        _fill(row, names, measures, views)
    return rows


def _view_key(protocol: Protocol) -> tuple[Any, ...]:
    return (*protocol.preparation, protocol.reference == "original")


def _key(name: str, protocol: Protocol) -> tuple[str, str]:
    """The metric, and a hash of all that it reads of a protocol."""
    if name == "lpips" and protocol.lpips.net == "vgg":
        name = "lpips_vgg"
    kept = ("crop", "filter", "library", "antialias", "rounding", "storage", *METRICS[name].reads)
    return name, replace(TOKBENCH, **{key: getattr(protocol, key) for key in kept}).sha256


def _make(
    name: str,
    protocol: Protocol,
    networks: ExtractorPool,
    adapter: LoadedAdapter,
    batch_size: int,
    statistics: FidStatistics | None,
) -> _Measure:
    measure = _Measure(protocol)
    used = statistics if protocol.reference == "statistics" else None
    try:
        measure.metric = create_metric(name, MetricContext(networks, adapter.model, protocol, batch_size, used))
    except MetricUnavailable as error:
        measure.missing = error
    return measure


def _reconstruct(
    adapter: LoadedAdapter, images: PairedBatch, made: dict[tuple[Any, ...], Batch], settings: RunSettings
) -> Batch:
    """The batch of these images; where an earlier preparation gave the same pixels, that one's."""
    for batch in made.values():
        if batch.reference is not None and torch.equal(batch.reference, images.reference):
            return replace(batch, original=images.original) if images.original else batch
    try:
        return reconstruct(adapter.model, images, plain_step(adapter.model), settings, DerivedCache())
    except TokbenchError:
        raise
    except Exception as error:  # other people's code: anything may come
        told = f"{type(error).__name__}: {str(error)[:300]}"
        raise AdapterError(f"{adapter.name} failed on the batch that starts with {images.names[0]}: {told}") from error


def _feed(measures: dict[tuple[str, str], _Measure], made: dict[tuple[Any, ...], Batch]) -> None:
    kept: dict[tuple[Any, ...], Batch] = {}
    for measure in measures.values():
        protocol = measure.protocol
        if measure.metric is None or (batch := made.get(_view_key(protocol))) is None:
            continue
        jpeg = protocol.storage.startswith("jpeg") and protocol.crop != "pad"  # see `stored`
        key = (id(batch), protocol.storage, protocol.rounding) if jpeg else (id(batch),)
        if key not in kept:
            kept[key] = roundtrip_format(batch, protocol)
        try:
            measure.metric.update(kept[key])
            measure.fed = True
        except MetricUnavailable as error:
            measure.metric, measure.missing = None, error


def _finish(measure: _Measure, seed: int, halves: SplitHalves) -> None:
    if measure.metric is None or not measure.fed:  # its images could not be prepared, which its view tells
        return
    try:
        measure.numbers.add(measure.metric, seed, halves)
    except MetricUnavailable as error:
        measure.missing = error
    measure.metric = None  # its features are no longer needed


def _fill(
    row: Row,
    names: Sequence[str],
    measures: dict[tuple[str, str], _Measure],
    views: dict[tuple[Any, ...], _View],
) -> None:
    view = views[_view_key(row.choice.protocol)]
    row.same_pixels = view.same and not view.error
    for name in names:
        own, digest = _key(name, row.choice.protocol)
        measure = measures[own, digest]
        if error := view.error or views[_view_key(measure.protocol)].error:
            row.missing[name] = error
        elif measure.missing:
            row.missing[name] = measure.missing.public_reason
            row.notes.append(f"{own} ({row.choice.title}): {measure.missing}")
        elif own in measure.numbers.values:
            row.numbers[name] = measure.numbers.values[own]
            if own in measure.numbers.replicates:
                row.replicates[name] = measure.numbers.replicates[own]
