"""AdapterRun: one adapter, and one step of the task, on its way through the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from tokbench.data.stream import ImageBatch, ImageStream
from tokbench.errors import AdapterError, MetricFailure
from tokbench.evaluation.config import EvalConfig
from tokbench.evaluation.metric_set import MetricSet, MetricValues, format_error
from tokbench.evaluation.provenance import describe_adapter
from tokbench.evaluation.reconstruct import RunSettings
from tokbench.evaluation.run_checkpoint import RunCheckpoint
from tokbench.evaluation.steps import TokenTransform
from tokbench.extractors.pool import ExtractorPool
from tokbench.metrics.batch import Batch, DerivedCache
from tokbench.metrics.feature_cache import ReferenceFeatures
from tokbench.metrics.image_format import roundtrip_format
from tokbench.stats.split_half import SplitHalves
from tokbench.tokenizers.registry import LoadedAdapter


@dataclass
class AdapterRun:
    """One adapter under one step: its metrics, its checkpoint, and the error that ended it.

    A fault of the adapter or of a metric ends this run and no other one. batches: how many the model has made.
    """

    adapter: LoadedAdapter
    step: TokenTransform
    images: ImageStream
    config: EvalConfig
    error: str | None = None
    metrics: MetricSet = field(default_factory=MetricSet)
    batch_size: int = field(init=False)
    batches: int = 0

    def __post_init__(self) -> None:
        self.batch_size = self.config.batch_size
        model = self.adapter.model
        # Of images made elsewhere, or by an object of this process, nothing but their pixels tells what they are.
        elsewhere = model.spec.kind == "images" and model.module is None
        self.checkpoint = RunCheckpoint(self.metrics, elsewhere or not self.adapter.resumable)

    def start(self, networks: ExtractorPool, references: ReferenceFeatures) -> None:
        """Make the metrics. `attach` must follow, once the metrics of all runs are made."""
        rows = self.images.unpaired is not None
        with self._isolated("the metrics cannot be made"):
            self.metrics = MetricSet.create(
                self.adapter.model, self.images.protocol, self.step, self.config, networks, rows
            )
            self.checkpoint.metrics = self.metrics
        self.references = references

    @cached_property
    def described(self) -> dict[str, Any]:
        """What a result records about the adapter. Made once, since it hashes all parameters."""
        return describe_adapter(self.adapter)

    def update_reference(self, references: Batch) -> None:
        """Take in references that no image was made from."""
        if self.error is None:
            with self._isolated():
                self.metrics.update_reference(references)

    def process(self, images: ImageBatch, memo: DerivedCache, executor: Executor, decoded: Callable[[], None]) -> None:
        """One batch through the model and all metrics, or from the checkpoint.

        memo: what all runs share that is made of the references. decoded: called when the model is done.
        """
        if self.error is not None:
            return
        with self._isolated(f"failed on the batch that starts with {images.names[0]}"):
            # Only a sample tells how large samples are, where there is no reference.
            resumable = not self.checkpoint.requires_output and self.images.shape is not None
            if resumable and self.checkpoint.resume(images, self.references):
                decoded()
                return
            batch = self._make(images, memo)
            decoded()
            self._measure(images, batch, executor)

    def compute(self, halves: SplitHalves, done: Callable[[str], None]) -> MetricValues:
        """What the metrics found; nothing where the run failed."""
        if self.error is None:
            with self._isolated():
                return self.metrics.compute(self.config.seed, halves, done)
        return MetricValues()

    def _make(self, images: ImageBatch, memo: DerivedCache) -> Batch:
        """One batch through the model. Where memory runs out, fewer images are taken at once from then on."""
        while True:
            # The first batch also pays for what is allocated once, so the second one's peak is what counts.
            first, early = self.batches == 0, self.batches < 2
            settings = RunSettings(self.config.device, self.batch_size, self.config.seed, early, first)
            try:
                batch = self.config.task.produce(self.step, self.adapter.model, images, settings, memo)
            except (torch.OutOfMemoryError, MemoryError) as error:
                if self.batch_size == 1:
                    text = f"out of memory with a single image, {images.names[0]}: {format_error(error)}"
                    raise RunFailure(text) from error
                self.batch_size //= 2
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
            else:
                self.batches += 1
                return batch

    def _measure(self, images: ImageBatch, batch: Batch, executor: Executor) -> None:
        made = batch.require("image")
        batch.references = self.references
        self.images.shape = self.images.shape or tuple(made.shape[2:])
        if self.checkpoint.requires_output and self.checkpoint.resume(images, self.references, made):
            return
        self.metrics.update(roundtrip_format(batch, self.images.protocol), executor)
        self.checkpoint.save(images, made)

    @contextmanager
    def _isolated(self, doing: str = "") -> Iterator[None]:
        """The one place where an error, of other people's code or of a metric, ends this run and not the others."""
        try:
            yield
        except (RunFailure, MetricFailure) as error:
            self.error = str(error)
        except Exception as error:
            self.error = f"{doing}: {format_error(error)}" if doing else format_error(error)


class RunFailure(AdapterError):
    """A run cannot go on; the message is the error of its result."""
