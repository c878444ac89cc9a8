"""Run: one adapter on its way through the pass; its metrics, its journal, and what stopped it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from tokbench import metrics
from tokbench.batch import Batch
from tokbench.bootstrap import entry
from tokbench.dataset import UNIT, Images
from tokbench.errors import CannotMeasure, NotApplicable, TokbenchError
from tokbench.features import References
from tokbench.halves import Halves
from tokbench.journal import Journal, Unit
from tokbench.metrics import METRICS
from tokbench.metrics.metric import Metric
from tokbench.metrics.output_checks import OutputChecks
from tokbench.pixels import to_bytes
from tokbench.plugins import Loaded
from tokbench.protocol import Protocol
from tokbench.provenance import describe_adapter
from tokbench.readers import Networks
from tokbench.result_warning import ResultWarning
from tokbench.rows import Rows
from tokbench.slots import Turn
from tokbench.spread import Spread
from tokbench.statistics import Statistics
from tokbench.steps import AS_ENCODED, Step
from tokbench.tasks import RECONSTRUCT, Task

PROBED = 1
"""Units of images, at the start, on which a reduced precision is compared with float32."""

_OUTPUTS = "(outputs)"
"""The name of the checks of what comes out, in errors and in a journal."""

_PIXELS = "(pixels)"
"""The name under which a journal keeps the digests of images that were made elsewhere."""


@dataclass
class Run:
    """One adapter under one protocol: its metrics, those that cannot be computed, and what stopped it.

    task: what makes its images. step: what its decoder gets of its tokens.
    probes: in a reduced precision, each metric with a network twice more, for the first images (and references) alone:
    `float32/lpips` and `bfloat16/lpips`. checks: what looks for damaged outputs and gives warnings in place of numbers,
    where images are made of all their tokens. produced: digests of images made elsewhere, which no weights tell apart.
    """

    adapter: Loaded
    protocol: Protocol
    batch_size: int
    task: Task = RECONSTRUCT
    step: Step = AS_ENCODED
    metrics: dict[str, Metric] = field(default_factory=dict)
    probes: dict[str, Metric] = field(default_factory=dict)
    checks: dict[str, Metric] = field(default_factory=dict)
    skipped: dict[str, CannotMeasure] = field(default_factory=dict)
    error: str | None = None
    batches: int = 0
    journal: Journal | None = None
    produced: Rows = field(default_factory=Rows)
    units: set[int] = field(default_factory=set)

    def start(
        self, names: Sequence[str], networks: Networks, statistics: Statistics | None, rows: bool = False
    ) -> None:
        """Make the metrics. `rows`: whether images lie beside the statistics."""
        model, protocol = self.adapter.model, self.protocol
        for name in names:
            try:
                guidance = self.step.told.get("guidance")
                self.metrics[name] = metrics.build(
                    name, networks, model, protocol, self.batch_size, statistics, self.task.paired, guidance, rows
                )
            except CannotMeasure as error:
                self.skipped[name] = error
        paired = self.task.paired
        if self.step.checked:
            self.checks[_OUTPUTS] = OutputChecks(model.spec, paired)
        if networks.precision == "float32" or not (paired or statistics is None or rows):
            return
        for name in [name for name in self.metrics if METRICS[name].network]:
            with suppress(CannotMeasure):  # where a protocol compares with statistics, of one precision only
                for probe in (networks.whole, networks):
                    made = metrics.build(name, probe, model, protocol, self.batch_size, paired=paired)
                    self.probes[f"{probe.precision}/{name}"] = made

    @cached_property
    def described(self) -> dict[str, Any]:
        """What a result says of the adapter. Made once, since it hashes all parameters."""
        return describe_adapter(self.adapter)

    @property
    def elsewhere(self) -> bool:
        """Whether nothing but the pixels of its images identifies it: they were made elsewhere, or by an object of this
        process."""
        return not self.adapter.resumable or (
            self.adapter.model.spec.kind == "images" and self.adapter.model.module is None
        )

    def attach(self, references: References) -> None:
        """Share the references' features with the other runs."""
        # The probes of samples look at the first references alone, and so have a table of their own.
        for metric in (*self.metrics.values(), *(self.probes.values() if self.task.paired else ())):
            metric.attach(references)

    def look(self, references: Batch) -> None:
        """Take in references that no image was made from."""
        self._each(self.metrics, list(self.metrics), lambda metric: metric.look(references), references, "references")
        if self.probes and int(references.index[-1]) < PROBED * UNIT:
            self._each(self.probes, list(self.probes), lambda probe: probe.look(references), references, "references")

    def take(self, images: Images | Turn, **options: Any) -> Batch | None:
        """One batch through the adapter; None where it failed. A fault of the adapter ends its run, not the others'."""
        while True:
            try:
                # The first batch also pays for what is allocated once, so the second one's peak is what counts.
                options |= {"watch_memory": self.batches < 2, "try_first": self.batches == 0}
                model, size = self.adapter.model, self.batch_size
                batch = self.task.produce(self.step, model, images, batch_size=size, **options)
                self.batches += 1
                return batch
            except (torch.OutOfMemoryError, MemoryError) as error:
                if self.batch_size == 1:
                    self.error = f"out of memory with a single image, {images.names[0]}: {explain(error)}"
                    return None
                self.batch_size //= 2
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
            except Exception as error:  # other people's code: anything may come
                self.error = f"failed on the batch that starts with {images.names[0]}: {explain(error)}"
                return None

    def eat(self, batch: Batch, beside: Executor) -> None:
        """One batch into every metric; those without a network are computed beside those with one."""
        networked = {name for name in self.metrics if METRICS[name].network}
        waiting = beside.submit(self._feed_plain, batch, [name for name in self.metrics if name not in networked])
        self._feed(batch, [name for name in self.metrics if name in networked])
        waiting.result()
        if self.elsewhere:
            self.produced.add(batch.index, {"sha256": _digests(batch)})
        if self.probes and int(batch.index[-1]) < PROBED * UNIT:
            self._each(self.probes, list(self.probes), lambda probe: probe.update(batch), batch, "images")

    def _feed(self, batch: Batch, names: Iterable[str]) -> None:
        self._each(self.metrics, names, lambda metric: metric.update(batch), batch, "images")

    def _feed_plain(self, batch: Batch, names: Iterable[str]) -> None:
        """The metrics without a network, and the checks, which need none."""
        self._feed(batch, names)
        self._each(self.checks, list(self.checks), lambda check: check.update(batch), batch, "images")

    def _each(
        self, among: dict[str, Metric], names: Iterable[str], do: Callable[[Metric], None], batch: Batch, what: str
    ) -> None:
        """Something with some metrics, probes or checks, and a batch. One that cannot be measured goes; a fault of its
        own ends the run of this adapter alone."""
        for name in names:
            try:
                do(among[name])
            except CannotMeasure as error:
                if among is self.metrics:
                    self.skipped[name] = error
                del among[name]
            except Exception as error:
                self.error = f"metric {name} failed on {len(batch)} {what}: {explain(error)}"
                return

    @property
    def _kept_ones(self) -> dict[str, Metric]:
        """All whose rows go to the journal, by the name that they have there."""
        return self.metrics | self.probes | self.checks

    def keep(self, images: Images | Turn) -> None:
        """Move what the metrics found in these images to the journal, unit by unit; where there is none, leave it."""
        if self.journal is None or self.journal.folder is None or self.error:
            return
        tables = {name: metric.rows for name, metric in self._kept_ones.items()}
        if self.elsewhere:
            tables[_PIXELS] = self.produced
        held = {name: rows.take_held() for name, rows in tables.items()}
        facts = {name: error.fact for name, error in self.skipped.items()}
        index = images.index.numpy()
        for unit in np.unique(index // UNIT).tolist():
            here = index // UNIT == unit
            columns = {
                name: {column: values[positions // UNIT == unit] for column, values in own.items()}
                for name, (positions, own) in held.items()
                if (positions // UNIT == unit).any()
            }
            digests = [digest for digest, own in zip(images.digests, here, strict=True) if own]
            file = self.journal.write(unit, index[here], digests, columns, facts)
            for name, own in columns.items():
                if file:
                    tables[name].add_file(index[here], list(own), file, f"{name}/")
                else:
                    tables[name].add(index[here], own)
            self.units.add(unit)

    def resume(self, images: Images | Turn, references: References, batch: Batch | None = None) -> bool:
        """Take in what the journal holds of these images, if it holds all of them, with these very pixels.

        `batch`: what the adapter made of them, for one whose images no weights describe; they must be the same too.
        """
        index, found = images.index.numpy(), []
        made = None if batch is None else _digests(batch)
        for unit in np.unique(index // UNIT).tolist():
            here = index // UNIT == unit
            kept = self.kept(unit)
            digests = [digest for digest, own in zip(images.digests, here, strict=True) if own]
            if kept is None or kept.digests != digests or not np.array_equal(kept.index, index[here]):
                return False
            if made is not None and not np.array_equal(kept.load(_PIXELS, "sha256"), made[here]):
                return False
            found.append(kept)
        # Only now, since this takes in the features of what are surely the same pixels.
        if not all(self.comparable(kept, references) for kept in found):
            return False
        for kept in found:
            self.restore(kept)
        return True

    def kept(self, unit: int) -> Unit | None:
        """What the journal holds of a unit; None unless that is all that is wanted."""
        kept = self.journal.read(unit) if self.journal else None
        if kept is None or not len(kept.index) or (self.elsewhere and _PIXELS not in kept.columns):
            return None
        wanted = [*self.metrics, *self.checks, *(self.probes if unit < PROBED else ())]
        if any(name not in kept.columns and name not in kept.skipped for name in wanted):
            return None
        return kept

    def comparable(self, kept: Unit, references: References) -> bool:
        """Whether the references' features of a unit are there; they are taken in."""
        present = [metric for name, metric in (self.metrics | self.probes).items() if name in kept.columns]
        return not any(metric.needs(references, kept.index, kept.digests) for metric in present)

    def restore(self, kept: Unit) -> None:
        """Take in a unit of the journal."""
        for name, fact in kept.skipped.items():
            if name in self.metrics:
                del self.metrics[name]
                self.skipped[name] = NotApplicable(fact)
        tables = {name: metric.rows for name, metric in self._kept_ones.items()}
        tables[_PIXELS] = self.produced
        for name, columns in kept.columns.items():
            if name in tables:
                tables[name].add_file(kept.index, columns, kept.file, f"{name}/")
        self.units.add(int(kept.index[0]) // UNIT)

    def numbers(self, seed: int, halves: Halves, done: Callable[[str], None]) -> Numbers:
        """What the metrics found. `done` is told of each."""
        found = Numbers()
        for name, metric in self.metrics.items():
            try:
                told = self._effect(name)
                found.add(metric, seed, halves, told)
            except CannotMeasure as error:
                self.skipped[name] = error
            except Exception as error:
                self.error = f"metric {name} failed: {explain(error)}"
                return Numbers()
            done(name)
        for check in self.checks.values():
            found.warnings += check.warnings()
        return found

    def _effect(self, name: str) -> dict[str, str]:
        """What a reduced precision did to a metric on the first images, for the result to say."""
        named = {probe: metric for probe, metric in self.probes.items() if probe.endswith(f"/{name}")}
        pair = [(probe.partition("/")[0], metric) for probe, metric in named.items()]
        if len(pair) < 2 or not all(len(metric.rows) for _, metric in pair):
            return {}
        values = {precision: next(iter(metric.compute().values())) for precision, metric in pair}
        told = ", ".join(f"{value:.6g} in {precision}" for precision, value in values.items())
        return {"effect of the precision": f"{told}, on the first {len(pair[0][1].rows)} images"}

    def fingerprint(self) -> str | None:
        """A hash of all images that were made elsewhere, in their order."""
        if not self.elsewhere or not len(self.produced):
            return None
        return hashlib.sha256("".join(self.produced.column("sha256").tolist()).encode()).hexdigest()


def _digests(batch: Batch) -> np.ndarray:
    """The sha256 of each image that was produced, as 8-bit pixels."""
    pixels = to_bytes(batch.need("image")).permute(0, 2, 3, 1).numpy()
    return np.array([hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() for image in pixels])


@dataclass
class Numbers:
    """Values with intervals, their provenance, per-image values and replicates, each by the number's name; readings by
    kind; warnings."""

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    provenance: dict[str, dict[str, str]] = field(default_factory=dict)
    per_image: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    replicates: dict[str, Spread] = field(default_factory=dict)
    readings: dict[str, list[tuple[int, list[dict[str, Any]]]]] = field(default_factory=dict)
    warnings: list[ResultWarning] = field(default_factory=list)

    def add(self, metric: Metric, seed: int, halves: Halves, told: Mapping[str, str] = MappingProxyType({})) -> None:
        """Take in one metric's numbers; `told` joins their provenance. Raises CannotMeasure."""
        computed, intervals, replicates = metric.compute(), metric.intervals(seed), metric.replicates(halves)
        for number, made in replicates.items():
            for name, value, interval in made.entries(number, computed[number], halves.count):
                computed[name], intervals[name] = value, interval
        for number, value in computed.items():
            self.values[number] = entry(value, intervals.get(number))
            if origin := {**metric.provenance(), **told}:
                self.provenance[number] = origin
        self.per_image |= metric.per_image()
        self.replicates |= replicates
        self.readings |= metric.readings()
        self.warnings += metric.warnings()


def explain(error: Exception) -> str:
    """An exception in one line; of tokbench's own, the message alone."""
    text = str(error).strip()
    return text if isinstance(error, TokbenchError) else f"{type(error).__name__}: {text[:300]}"
