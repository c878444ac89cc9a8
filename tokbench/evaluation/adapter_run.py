"""AdapterRun: the evaluation of one adapter with one token transform."""

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
from tokbench.evaluation.neighbours import Neighbours
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
from tokbench.tokenizers.user_code import with_place


@dataclass
class AdapterRun:
    """One adapter with one token transform: its metrics, its checkpoint, and the error that ended it.

    An error of the adapter or of a metric ends this run but no other run. batches: the number of batches that the model
    has processed.
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
        # No hash identifies images from another program or from an object of this process; only their pixels do.
        external = model.spec.kind == "images" and model.module is None
        self.checkpoint = RunCheckpoint(self.metrics, external or not self.adapter.resumable)

    def start(self, networks: ExtractorPool, references: ReferenceFeatures) -> None:
        """Create the metrics. `share_references` must be called once the metrics of all runs exist."""
        if not self.description:
            return
        with self._errors_end_run("the metrics cannot be created"):
            cache = references if self.adapter.resumable else ReferenceFeatures()
            others = Neighbours(self.adapter.model, self.images, self.description, self.config, cache)
            self.metrics = MetricSet.create(
                self.adapter.model, self.step, self.config, networks, self.images, others.tokens
            )
            self.checkpoint.metrics = self.metrics
        self.references = references

    def share_references(self) -> None:
        """Make the metrics use the references' features that all runs share."""
        if self.error is None:
            with self._errors_end_run():
                self.metrics.share_references(self.references)

    @cached_property
    def description(self) -> dict[str, Any]:
        """What a result records about the adapter; nothing if that fails, which ends the run.

        It is computed once, since it hashes all parameters.
        """
        facts: dict[str, Any] = {}
        with self._errors_end_run("its code and weights cannot be identified"):
            facts = describe_adapter(self.adapter)
        return facts

    def update_reference(self, references: Batch) -> None:
        """Update the metrics with references from which no image was made."""
        if self.error is None:
            with self._errors_end_run():
                self.metrics.update_reference(references)

    def process(
        self,
        images: ImageBatch,
        memo: DerivedCache,
        executor: Executor,
        decoded: Callable[[], None],
        advance: Callable[[float], None] = lambda share: None,
    ) -> None:
        """Run one batch through the model and all metrics, or read its values from the checkpoint.

        memo: values derived from the references, shared by all runs. decoded: called when the model has finished.
        advance: called with the share of the batch that the model has finished.
        """
        if self.error is not None:
            return
        with self._errors_end_run(f"failed on the batch that starts with {images.names[0]}"):
            # Without references the size of the samples is unknown until a first sample was drawn.
            resumable = not self.checkpoint.requires_output and self.images.shape is not None
            if resumable and self.checkpoint.resume(images, self.references):
                decoded()
                return
            batch = self._run_model(images, memo, advance)
            decoded()
            self._update_metrics(images, batch, executor)

    def compute(self, halves: SplitHalves, done: Callable[[str], None]) -> MetricValues:
        """Return the values of the metrics, which are empty where the run failed.

        halves: the random halves of the images. done: called with the name of each metric.
        """
        if self.error is None:
            with self._errors_end_run():
                return self.metrics.compute(self.config.seed, halves, done)
        return MetricValues()

    def _run_model(self, images: ImageBatch, memo: DerivedCache, advance: Callable[[float], None]) -> Batch:
        """Run one batch through the model. Where memory is exhausted, the batch size is halved from then on."""
        while True:
            # The peak is measured in the second batch, too, since the first one includes one-time allocations.
            first, early = self.batches == 0, self.batches < 2
            settings = RunSettings(self.config.device, self.batch_size, self.config.seed, early, first, advance)
            try:
                batch = self.config.task.run(self.step, self.adapter.model, images, settings, memo)
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

    def _update_metrics(self, images: ImageBatch, batch: Batch, executor: Executor) -> None:
        output = batch.require("image")
        batch.references = self.references
        self.images.shape = self.images.shape or tuple(output.shape[2:])
        if self.checkpoint.requires_output and self.checkpoint.resume(images, self.references, output):
            return
        self.metrics.update(roundtrip_format(batch, self.images.protocol), executor)
        self.checkpoint.save(images, output)

    @contextmanager
    def _errors_end_run(self, action: str = "") -> Iterator[None]:
        """Turn any exception of third-party code or of a metric into the error of this run. This is the only place that
        does so."""
        try:
            yield
        except (RunFailure, MetricFailure) as error:
            self.error = str(error)
        except Exception as error:
            text = f"{action}: {format_error(error)}" if action else format_error(error)
            self.error = with_place(text, error, self.adapter.folders)


class RunFailure(AdapterError):
    """An error that ends a run. Its message is the error of the result."""
