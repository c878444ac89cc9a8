"""Restorer: an adapter that restores degraded images before other adapters get them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tokbench.data.stream import PairedBatch
from tokbench.errors import AdapterError
from tokbench.evaluation.provenance import describe_adapter
from tokbench.evaluation.reconstruct import RunSettings, reconstruct
from tokbench.evaluation.steps import plain_step
from tokbench.metrics.batch import DerivedCache
from tokbench.protocol.rounding import quantize
from tokbench.tokenizers.builtin.images import ImageFolder
from tokbench.tokenizers.registry import LoadedAdapter


@dataclass(frozen=True)
class Restorer:
    """An adapter whose output, rounded to 8 bits, is the input of the adapters that are evaluated.

    Raises AdapterError for a generator and for images that exist already.
    """

    adapter: LoadedAdapter

    def __post_init__(self) -> None:
        if isinstance(self.adapter.model, ImageFolder):
            raise AdapterError(f"{self.adapter.name}: these images exist already; --restore needs a network")
        plain_step(self.adapter.model)

    @cached_property
    def description(self) -> dict[str, Any]:
        """What a result records: the name, and hashes of weights and code."""
        return {"name": self.adapter.name} | describe_adapter(self.adapter)

    def restored(self, images: PairedBatch, settings: RunSettings) -> PairedBatch:
        """Return the batch with restored images (B, 3, H, W) as the input of tokenizers.

        Raises AdapterError if the adapter breaks its contract or fails.
        """
        model = self.adapter.model
        if model.module is not None:
            model.module.eval().to(settings.device)
        output = reconstruct(model, images, plain_step(model), settings, DerivedCache()).require("image")
        return replace(images, degraded=quantize(output, "nearest"))
