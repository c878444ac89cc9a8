"""The loop: one pass over the images, every adapter, every metric. It names none of them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import tokbench
from tokbench import metrics
from tokbench.batch import Batch, Memo
from tokbench.bootstrap import Interval
from tokbench.dataset import Dataset, Images
from tokbench.errors import CannotMeasure, DataError, TokbenchError
from tokbench.fit import fit
from tokbench.halves import INFINITY, Halves, Replicates
from tokbench.metrics.metric import Metric
from tokbench.plugins import Loaded
from tokbench.protocol import Protocol
from tokbench.readers import Networks
from tokbench.readers.network import CHUNK
from tokbench.result import Result
from tokbench.speed import give_back_memory
from tokbench.statistics import Statistics
from tokbench.storage import stored
from tokbench.tasks import TASKS

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is, and of how much."""

_VERSIONS = ("torch", "torchvision", "numpy", "pillow", "scikit-image", "torch-fidelity", "lpips")


@dataclass
class Run:
    """One adapter under one protocol on its way through the pass: its metrics, those that cannot be computed, and what
    stopped it."""

    adapter: Loaded
    protocol: Protocol
    metrics: dict[str, Metric] = field(default_factory=dict)
    skipped: dict[str, CannotMeasure] = field(default_factory=dict)
    error: str | None = None
    batches: int = 0

    def start(self, names: Sequence[str], networks: Networks, batch_size: int, statistics: Statistics | None) -> None:
        """Make the metrics."""
        for name in names:
            try:
                self.metrics[name] = metrics.build(
                    name, networks, self.adapter.model, self.protocol, batch_size, statistics
                )
            except CannotMeasure as error:
                self.skipped[name] = error

    def take(self, images: Images, task: str, **options: Any) -> Batch | None:
        """One batch through the adapter; None where it failed. A fault of the adapter ends its run, not the others'."""
        try:
            # The first batch also pays for what is allocated once, so the second one's peak is what counts.
            batch = TASKS[task](self.adapter.model, images, watch_memory=self.batches < 2, **options)
        except Exception as error:  # other people's code: anything may come
            self.error = f"failed on the batch that starts with {images.names[0]}: {_explain(error)}"
            return None
        self.batches += 1
        return batch

    def eat(self, batch: Batch) -> None:
        """One batch into every metric."""
        for name, metric in list(self.metrics.items()):
            try:
                metric.update(batch)
            except CannotMeasure as error:
                self.skipped[name] = error
                del self.metrics[name]
            except Exception as error:
                self.error = f"metric {name} failed: {_explain(error)}"
                return

    def numbers(self, seed: int, halves: Halves, done: Callable[[str], None]) -> Numbers:
        """What the metrics found. `done` is told of each."""
        found = Numbers()
        for name, metric in self.metrics.items():
            try:
                found.add(metric, seed, halves)
            except CannotMeasure as error:
                self.skipped[name] = error
            except Exception as error:
                self.error = f"metric {name} failed: {_explain(error)}"
                return Numbers()
            done(name)
        return found


@dataclass
class Numbers:
    """Values with intervals, their provenance, per-image values and replicates, each by the number's name."""

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    provenance: dict[str, dict[str, str]] = field(default_factory=dict)
    per_image: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    replicates: dict[str, Replicates] = field(default_factory=dict)

    def add(self, metric: Metric, seed: int, halves: Halves) -> None:
        """Take in one metric's numbers. Raises CannotMeasure."""
        computed, intervals, replicates = metric.compute(), metric.intervals(seed), metric.replicates(halves)
        for number, made in replicates.items():
            floor = 0.0 if made.quarters is not None else -math.inf  # an unbiased estimate may be negative
            intervals[number] = made.interval(computed[number], halves.count, floor)
            if extrapolated := made.at_infinity(computed[number]):
                value, own = extrapolated
                computed |= {number + INFINITY: value}
                intervals[number + INFINITY] = own.interval(value, halves.count)
        for number, value in computed.items():
            self.values[number] = {"value": tidy(value), "low": None, "high": None} | _interval(intervals.get(number))
            if told := metric.provenance():
                self.provenance[number] = told
        self.per_image |= metric.per_image()
        self.replicates |= replicates


def evaluate(
    adapters: Sequence[Loaded],
    dataset: Dataset,
    names: Sequence[str],
    *,
    task: str = "reconstruct",
    precision: str = "float32",
    networks: Networks | None = None,
    statistics: Statistics | None = None,
    batch_size: int = 16,
    seed: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> list[Result]:
    """Evaluate adapters on a dataset in one pass; one Result each, in order, those with an `error` included.

    `names` are metric names. `statistics`: what distributions are compared with in place of the references' own.
    `progress` is told ("images" or "intervals", how many are done, of how many).
    Raises DataError where not one image could be read.
    """
    networks = networks or Networks()
    runs = [Run(adapter, dataset.protocol) for adapter in adapters]
    for run in runs:
        run.start(names, networks, batch_size, statistics)
        run.error = make_ready(run.adapter, dataset, networks.device)
    with exact_kernels():
        done = 0
        for images in dataset.batches(whole_chunks(batch_size)):
            memo = Memo()
            for run in runs:
                if run.error is None:
                    batch = run.take(images, task, memo=memo, device=networks.device, batch_size=batch_size, seed=seed)
                    if batch is not None:
                        run.eat(stored(batch, dataset.protocol))
            give_back_memory()
            done += len(images.names)
            progress("images", done, len(dataset))
            if all(run.error for run in runs):
                break
    refuse_empty(dataset)
    told = {"seed": seed, "precision": precision, "device": networks.device}
    if statistics is not None:
        told["reference"] = {"file": statistics.name, "sha256": statistics.sha256, "count": statistics.count}
    total, measured = sum(len(run.metrics) for run in runs if run.error is None), 0

    def count(name: str) -> None:
        nonlocal measured
        measured += 1
        progress("intervals", measured, total)

    return [_result(run, dataset, task, told, count) for run in runs]


def make_ready(adapter: Loaded, dataset: Dataset, device: str) -> str | None:
    """Let an adapter look at the images to come, and put its networks on the device. What went wrong, or None."""
    try:
        adapter.model.prepare(dataset.names, dataset.source.names)
        if adapter.model.module is not None:
            adapter.model.module.eval().to(device)
    except Exception as error:
        return _explain(error)
    return None


def exact_kernels() -> AbstractContextManager[None]:
    """On a GPU, cuDNN would otherwise round float32 to TF32 and choose kernels that differ from run to run."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def whole_chunks(batch_size: int) -> int:
    """Images of a pass's batch: whole chunks of the frozen networks, however few the tokenizer takes at once."""
    return -(-batch_size // CHUNK) * CHUNK


def refuse_empty(dataset: Dataset) -> None:
    """Raises DataError where a pass read not one image."""
    if dataset.shape is None:
        first = dataset.bad[0][1] if dataset.bad else "it is empty"
        raise DataError(f"{dataset.name}: no image could be read ({first})")


def _result(run: Run, dataset: Dataset, task: str, told: dict[str, Any], done: Callable[[str], None]) -> Result:
    count = len(dataset) - len(dataset.bad)
    halves = Halves(dataset.sha256, count)
    numbers = run.numbers(told["seed"], halves, done) if run.error is None else Numbers()
    for number in numbers.values.values():
        number.setdefault("n", count)
    assert dataset.shape is not None
    height, width = dataset.shape
    plan = fit(run.adapter.model.spec, height, width)
    return Result(
        adapter=run.adapter.name,
        dataset=dataset.name,
        task=task,
        num_images=count,
        metrics=numbers.values,
        skipped={name: error.fact for name, error in run.skipped.items()},
        bad_images=[{"name": name, "reason": reason} for name, reason in dataset.bad],
        provenance={
            "adapter": describe_adapter(run.adapter) | ({"fitted": note} if (note := plan.describe()) else {}),
            "data": {
                "sha256": dataset.sha256,
                "width": width,
                "height": height,
                "own_size": dataset.own_size,
                "available": len(dataset.source.names),
                "limit": dataset.limit if dataset.limit and dataset.limit < len(dataset.source.names) else None,
                "enlarged": dataset.enlarged,
            },
            "protocol": describe_protocol(dataset.protocol),
            "metrics": numbers.provenance,
            **told,
            "versions": {"tokbench": tokbench.__version__, "python": platform.python_version()}
            | {package: importlib.metadata.version(package) for package in _VERSIONS},
        },
        error=run.error,
        per_image=_aligned(numbers.per_image, dataset.names),
        replicates=numbers.replicates,
        notes={name: str(error) for name, error in run.skipped.items()},
        computed=frozenset(run.metrics) - frozenset(run.skipped),
    )


def describe_protocol(protocol: Protocol) -> dict[str, Any]:
    """What a result must say of its protocol: name, hash, and what its authors use."""
    published = {key: value for key in ("size", "num_images") if (value := getattr(protocol.published, key))}
    return {"name": protocol.name, "sha256": protocol.sha256} | ({"published": published} if published else {})


def describe_adapter(adapter: Loaded) -> dict[str, Any]:
    """What a result must say of its adapter: the spec, and hashes of its weights."""
    spec = adapter.model.spec
    told: dict[str, Any] = {"source": adapter.source, "kind": spec.kind, "range": list(spec.range)}
    for key in ("multiple", "size", "downsample", "num_tokens", "codebook", "bits_per_token"):
        if value := getattr(spec, key):
            told[key] = value
    if adapter.model.dtype != torch.float32:
        told["dtype"] = str(adapter.model.dtype).removeprefix("torch.")
    if adapter.weights:
        told["weights"] = adapter.weights
    if adapter.code:
        told["code_sha256"] = adapter.code
    if fingerprint := adapter.model.fingerprint():
        told["fingerprint"] = fingerprint
    if adapter.model.module is not None:
        told["parameters_sha256"] = hash_module(adapter.model.module)
    return told


def hash_module(module: nn.Module) -> str:
    """sha256 over names, shapes and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if isinstance(tensor, Tensor):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def tidy(value: float) -> float | None:
    """Ten significant digits, the most that a float32 network could give a meaning to; None for NaN."""
    return None if math.isnan(value) else float(f"{value:.10g}")


def _interval(interval: Interval | None) -> dict[str, Any]:
    return {} if interval is None else {"low": tidy(interval.low), "high": tidy(interval.high), "n": interval.n}


def _aligned(per_image: dict[str, tuple[np.ndarray, np.ndarray]], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Per-image values on one axis: `index` (positions) and `name`, then each number, NaN where it has no value."""
    if not per_image:
        return {}
    positions = np.unique(np.concatenate([index for index, _ in per_image.values()]))
    columns = {"index": positions, "name": np.array([names[p] for p in positions])}
    for number, (index, values) in per_image.items():
        column = np.full(len(positions), np.nan)
        column[np.searchsorted(positions, index)] = values
        columns[number] = column
    return columns


def _explain(error: Exception) -> str:
    text = str(error).strip()
    return text if isinstance(error, TokbenchError) else f"{type(error).__name__}: {text[:300]}"
