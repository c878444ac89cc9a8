"""Builders of evaluations, adapters and results that several test modules share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from tokbench.data.labels import Labels
from tokbench.data.stream import ImageStream
from tokbench.evaluation.config import Context, EvalConfig
from tokbench.evaluation.evaluate import evaluate
from tokbench.extractors.pool import ExtractorPool
from tokbench.results.result import Result
from tokbench.tokenizers.base import ImageModel
from tokbench.tokenizers.registry import LoadedAdapter


def run_eval(
    adapters: Sequence[LoadedAdapter], images: ImageStream, metrics: Sequence[str], **options: Any
) -> list[Result]:
    """`evaluate` with the fields of its configuration and context as keywords; device and precision are those of
    `networks`, where there are any."""
    networks: ExtractorPool | None = options.get("networks")
    where = {name: options.pop(name) for name in [field.name for field in fields(Context)] if name in options}
    if networks is not None:
        options |= {"device": networks.device, "precision": networks.precision}
    return evaluate(adapters, images, EvalConfig(tuple(metrics), **options), Context(**where))


def loaded(model: ImageModel, name: str = "") -> LoadedAdapter:
    """A model that no file defines, as an adapter; its name is that of its spec unless another is given."""
    name = name or model.spec.name
    return LoadedAdapter(name, name, model, {})


def evaluate_model(model: ImageModel, images: ImageStream, metrics: Sequence[str], **options: Any) -> Result:
    """The one result of a model that no file defines; options as for `run_eval`."""
    (result,) = run_eval([loaded(model)], images, metrics, **options)
    return result


def some_labels(classes: int) -> tuple[np.ndarray, Labels]:
    """Labels of 100 images, as the context of metrics provides them: 0, 1, 2 ... in turn."""
    return np.arange(100) % classes, Labels({}, classes, "in turn")


def image_columns(count: int, **values: np.ndarray) -> dict[str, np.ndarray]:
    """Per-image arrays of a result with so many images: positions, names and the given values."""
    return {"index": np.arange(count), "name": np.arange(count).astype(str), **values}


def make_result(
    adapter: str = "a",
    metrics: Mapping[str, Any] | None = None,
    *,
    dataset: str = "set",
    task: str = "reconstruct",
    num_images: int = 10,
    skipped: Mapping[str, str] | None = None,
    per_image: Mapping[str, np.ndarray] | None = None,
    **provenance: Any,
) -> Result:
    """A result that was not measured. Other keywords are keys of its provenance (`adapter_facts` for `adapter`):
    dictionaries are merged into the default ones, other values replace them."""
    if metrics is None:
        metrics = {"psnr": {"value": 30.0, "low": 29.0, "high": 31.0, "n": num_images}, "bpp": {"value": 1.0}}
    known: dict[str, Any] = {
        "adapter": {"kind": "codec"},
        "data": {"sha256": "d" * 64, "width": 256, "height": 256, "own_size": 256, "limit": None},
        "protocol": {"name": "tokbench", "sha256": "b" * 64},
        "metrics": {}, "seed": 0, "precision": "float32", "device": "cpu", "versions": {},
    }  # fmt: skip
    for key, value in provenance.items():
        key = "adapter" if key == "adapter_facts" else key
        known[key] = known[key] | value if isinstance(value, dict) and key in known else value
    return Result(
        adapter, dataset, task, num_images, dict(metrics), dict(skipped or {}), [], known,
        per_image=dict(per_image or {}),
    )  # fmt: skip
