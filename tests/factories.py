"""Builders that several test modules share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from tokbench.config import Context, EvalConfig
from tokbench.evaluate import evaluate
from tokbench.plugins import Loaded
from tokbench.readers import Networks
from tokbench.result import Result
from tokbench.stream import ImageStream


def run_eval(adapters: Sequence[Loaded], images: ImageStream, metrics: Sequence[str], **options: Any) -> list[Result]:
    """`evaluate` with the fields of its configuration and context as keywords; device and precision are those of
    `networks`, where there are any."""
    networks: Networks | None = options.get("networks")
    where = {name: options.pop(name) for name in [field.name for field in fields(Context)] if name in options}
    if networks is not None:
        options |= {"device": networks.device, "precision": networks.precision}
    return evaluate(adapters, images, EvalConfig(tuple(metrics), **options), Context(**where))
