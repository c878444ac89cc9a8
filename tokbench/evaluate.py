"""The loop: one pass over the images, every adapter, every metric. It names none of them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import tokbench
from tokbench import metrics
from tokbench.bootstrap import Interval
from tokbench.dataset import Dataset, Images
from tokbench.errors import CannotMeasure, DataError, TokbenchError
from tokbench.fit import fit
from tokbench.metrics.metric import Metric
from tokbench.plugins import Loaded
from tokbench.readers import Networks
from tokbench.readers.network import CHUNK
from tokbench.result import Result
from tokbench.tasks import TASKS

_VERSIONS = ("torch", "torchvision", "numpy", "pillow", "scikit-image", "torch-fidelity", "lpips")


@dataclass
class Run:
    """One adapter on its way through the pass: its metrics, those that cannot be computed, and what stopped it."""

    adapter: Loaded
    metrics: dict[str, Metric] = field(default_factory=dict)
    skipped: dict[str, CannotMeasure] = field(default_factory=dict)
    error: str | None = None
    batches: int = 0

    def start(self, names: Sequence[str], networks: Networks, dataset: Dataset, batch_size: int) -> None:
        """Make the metrics, and let the adapter look at the images to come."""
        for name in names:
            try:
                self.metrics[name] = metrics.build(name, networks, self.adapter.model, batch_size)
            except CannotMeasure as error:
                self.skipped[name] = error
        try:
            self.adapter.model.prepare(dataset.names, dataset.source.names)
            if self.adapter.model.module is not None:
                self.adapter.model.module.eval().to(networks.device)
        except Exception as error:
            self.error = _explain(error)

    def take(self, images: Images, task: str, **options: Any) -> None:
        """One batch through the adapter and into every metric. A fault of the adapter ends its run, not the others'."""
        try:
            # The first batch also pays for what is allocated once, so the second one's peak is what counts.
            batch = TASKS[task](self.adapter.model, images, watch_memory=self.batches < 2, **options)
        except Exception as error:  # other people's code: anything may come
            self.error = f"failed on the batch that starts with {images.names[0]}: {_explain(error)}"
            return
        self.batches += 1
        for name, metric in list(self.metrics.items()):
            try:
                metric.update(batch)
            except CannotMeasure as error:
                self.skipped[name] = error
                del self.metrics[name]
            except Exception as error:
                self.error = f"metric {name} failed: {_explain(error)}"
                return

    def numbers(self, seed: int) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, str]], dict[str, Any]]:
        """Values with intervals, their provenance, and the per-image values, each by the number's name."""
        values: dict[str, dict[str, Any]] = {}
        provenance: dict[str, dict[str, str]] = {}
        per_image: dict[str, Any] = {}
        for name, metric in self.metrics.items():
            try:
                computed, intervals = metric.compute(), metric.intervals(seed)
            except CannotMeasure as error:
                self.skipped[name] = error
                continue
            except Exception as error:
                self.error = f"metric {name} failed: {_explain(error)}"
                return {}, {}, {}
            for number, value in computed.items():
                values[number] = {"value": tidy(value), "low": None, "high": None} | _interval(intervals.get(number))
                if told := metric.provenance():
                    provenance[number] = told
            per_image |= metric.per_image()
        return values, provenance, per_image


def evaluate(
    adapters: Sequence[Loaded],
    dataset: Dataset,
    names: Sequence[str],
    *,
    task: str = "reconstruct",
    precision: str = "float32",
    networks: Networks | None = None,
    batch_size: int = 16,
    seed: int = 0,
    progress: Callable[[int], None] = lambda images: None,
) -> list[Result]:
    """Evaluate adapters on a dataset in one pass; one Result each, in order, those with an `error` included.

    `names` are metric names; `progress` is told how many images each batch held.
    Raises DataError where not one image could be read.
    """
    networks = networks or Networks()
    runs = [Run(adapter) for adapter in adapters]
    for run in runs:
        run.start(names, networks, dataset, batch_size)
    # On a GPU, cuDNN would otherwise round float32 to TF32 and choose kernels that differ from run to run.
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        # Batches fill whole chunks of the frozen networks, however few images the tokenizer takes at once.
        for images in dataset.batches(-(-batch_size // CHUNK) * CHUNK):
            memo: dict[str, dict[str, Tensor]] = {}
            for run in runs:
                if run.error is None:
                    run.take(images, task, memo=memo, device=networks.device, batch_size=batch_size, seed=seed)
            progress(len(images.names))
            if all(run.error for run in runs):
                break
    if dataset.shape is None:
        first = dataset.bad[0][1] if dataset.bad else "it is empty"
        raise DataError(f"{dataset.name}: no image could be read ({first})")
    told = {"seed": seed, "precision": precision, "device": networks.device}
    return [_result(run, dataset, task, told) for run in runs]


def _result(run: Run, dataset: Dataset, task: str, told_of_run: dict[str, Any]) -> Result:
    values, told, per_image = run.numbers(told_of_run["seed"]) if run.error is None else ({}, {}, {})
    count = len(dataset) - len(dataset.bad)
    for number in values.values():
        number.setdefault("n", count)
    assert dataset.shape is not None
    height, width = dataset.shape
    plan = fit(run.adapter.model.spec, height, width)
    return Result(
        adapter=run.adapter.name,
        dataset=dataset.name,
        task=task,
        num_images=count,
        metrics=values,
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
            "protocol": {"name": dataset.protocol.name, "sha256": dataset.protocol.sha256},
            "metrics": told,
            **told_of_run,
            "versions": {"tokbench": tokbench.__version__, "python": platform.python_version()}
            | {package: importlib.metadata.version(package) for package in _VERSIONS},
        },
        error=run.error,
        per_image=_aligned(per_image, dataset.names),
        notes={name: str(error) for name, error in run.skipped.items()},
        computed=frozenset(run.metrics) - frozenset(run.skipped),
    )


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
