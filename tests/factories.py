"""Builders that several test modules share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from tokbench.data.stream import ImageStream
from tokbench.evaluation.config import Context, EvalConfig
from tokbench.evaluation.evaluate import evaluate
from tokbench.extractors.pool import ExtractorPool
from tokbench.results.result import Result
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
