"""The benchmark of classifiers of clips: measures methods at several keeps, and saves every measured row."""

from __future__ import annotations

import copy
import importlib.metadata
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokbench import timing
from tokbench._version import __version__
from tokbench.data.dataset import Dataset
from tokbench.errors import DataError, UsageError
from tokbench.io.hashing import code_of, sha256_of
from tokbench.paths import PACKAGE
from tokbench.protocol.protocol import describe_protocol
from tokbench.pruning import paired_timing
from tokbench.pruning.benchmark import processor_of
from tokbench.pruning.clips.methods import CONTROLS, METHODS, ClipReducer
from tokbench.pruning.clips.network import FORMULA, ClipClassifier
from tokbench.pruning.clips.result import ClipRow, ClipTiming
from tokbench.pruning.kinds import Progress, PruneRequest
from tokbench.pruning.measure import TRIES, rounded, speedup_of
from tokbench.pruning.paired_timing import STEADY, time_in_turns
from tokbench.pruning.result import Estimate, PruningResult, packed
from tokbench.stats.bootstrap import bootstrap_pairs, mean, metric_entry, share_interval
from tokbench.timing import device_name
from tokbench.tokenizers.registry import network_files
from tokbench.tokenizers.training_record import read_record
from tokbench.training.zoo import open_network
from tokbench.weights.shards import shard_paths

_BATCH = 32


@dataclass(frozen=True)
class LoadedClassifier:
    """A trained classifier on its device. weights: hashes by file. seconds: of its training."""

    name: str
    network: ClipClassifier
    weights: dict[str, str]
    seconds: float


def load_clip_classifier(name: str, device: str, root: Path | None) -> LoadedClassifier:
    """Load a network in eval mode. Raises UsageError for other networks, MissingWeights if it was not trained."""
    toml = network_files(root)[name]
    variant, network = open_network(name, toml)
    if not isinstance(network, ClipClassifier):
        raise UsageError(f"{name} is a {type(network).__name__}, not a classifier of clips")
    weights = {path.name: sha256_of(path) for path in shard_paths(variant.file)}
    seconds = float(read_record(toml).get("seconds", 0.0))
    return LoadedClassifier(name, network.to(device).eval().requires_grad_(False), weights, seconds)


@dataclass(frozen=True)
class _Way:
    """One way to run a classifier: with a reducer at a keep."""

    loaded: LoadedClassifier
    reducer: ClipReducer | None
    keep: float

    def forward(self, clips: Tensor) -> Tensor:
        with self.loaded.network.using(self.reducer, self.keep):
            logits: Tensor = self.loaded.network(clips)
        return logits


class ClipBenchmark:
    """Benchmark of token reduction in one classifier, on one data set of clips and device."""

    controls = CONTROLS

    def __init__(self, model: LoadedClassifier, dataset: Dataset, request: PruneRequest) -> None:
        """Raises DataError if the clips have no labels, or labels that the network does not have."""
        self.model, self.dataset, self.request = model, dataset, request
        labels = dataset.source.labels()
        if labels is None:
            raise DataError(f"{dataset.name} has no labels; use clips with labels, such as sprites")
        if max(labels.values()) >= model.network.classes:
            raise DataError(
                f"{dataset.name} has the label {max(labels.values())}, but {model.name} has {model.network.classes} "
                "classes; use the data that it was trained for"
            )
        self.labels = labels
        self._whole: np.ndarray | None = None
        self._truth = np.zeros(0, np.int64)
        self._shape: tuple[int, ...] = ()

    def run(
        self, name: str, keeps: Sequence[float], out: Path, progress: Progress
    ) -> Iterator[tuple[PruningResult, str]]:
        """Measure the rows of a method that are not in `out` yet; yield the result and the row's key after each row.

        name: a method, or a network that was trained with one, which is measured at its own keep. Raises UsageError for
        an unknown method or an unsuitable keep, MissingWeights for a network that was not trained.
        """
        whole = self.whole(progress)
        for way in self.ways(name, keeps):
            result = PruningResult(self.about(name, way)).resumed(out)
            key = f"{way.keep:g}"
            row = result.rows.get(key)
            if row is None or row.weights != way.loaded.weights:
                row = result.rows[key] = self.row(way, whole, progress)
                result.save(out)
            for batch in self.batches:
                known = {pace.batch: pace for pace in row.pace}
                while batch not in known or (_disturbed(known[batch]) and known[batch].tries < self.request.tries):
                    progress(f"{name} {key} batch sizes", len(row.pace), len(self.batches))
                    known[batch] = self.time(way, batch, known[batch].tries + 1 if batch in known else 1)
                    row.pace = [known[size] for size in sorted(known)]
                    result.save(out)
            yield result, key

    @property
    def batches(self) -> tuple[int, ...]:
        return (1,) if self.request.batches is None else self.request.batches

    def ways(self, name: str, keeps: Sequence[float]) -> Iterator[_Way]:
        if name in METHODS:
            for keep in keeps:
                if keep == 1:
                    raise UsageError("at keep 1 there is nothing to reduce; use a smaller keep")
                yield _Way(self.model, METHODS[name](), keep)
        elif name in network_files(self.request.root):
            own = load_clip_classifier(name, self.request.device, self.request.root)
            if own.network.reducer is None:
                raise UsageError(f"{name} was trained with all tokens; give it as --model")
            yield _Way(own, own.network.reducer, own.network.keep)
        else:
            raise UsageError(f"unknown method '{name}'; available: {', '.join(METHODS)}, and networks of this kind")

    def whole(self, progress: Progress) -> np.ndarray:
        """Return the most likely class of each clip (N,) with all tokens, computed once."""
        if self._whole is None:
            self._whole = self.predict(_Way(self.model, None, 1.0), partial(progress, "whole clips"))
        return self._whole

    @torch.inference_mode()
    def predict(self, way: _Way, progress: Any) -> np.ndarray:
        found, truth = list[Tensor](), list[int]()
        reader = self.dataset.batches(_BATCH)
        for clips in reader:
            reader.prefetch()
            self._shape = tuple(clips.reference.shape[1:])
            found.append(way.forward(clips.reference.to(self.request.device) * 2 - 1).argmax(1).cpu())
            truth += [self.labels[name] for name in clips.names]
            progress(reader.done, reader.total)
        self.dataset.refuse_empty()
        self._truth = np.array(truth)
        return torch.cat(found).numpy()

    def row(self, way: _Way, whole: np.ndarray, progress: Progress) -> ClipRow:
        """Measure one keep, without its timings."""
        own = self.predict(way, partial(progress, f"{way.keep:g} clips"))
        if own.shape != whole.shape:
            raise DataError("some clips could be read in only one of two passes; run the command again")
        right, right_whole, agree = (
            values.astype(float) for values in (own == self._truth, whole == self._truth, own == whole)
        )
        frames, network = self._shape[0], way.loaded.network
        with network.using(way.reducer, way.keep):
            tokens, cost = network.kept(frames) * network.segments, network.flops(frames)
        with self.model.network.using(None, 1.0):
            whole_cost = self.model.network.flops(frames)
        gap = metric_entry(mean(right) - mean(right_whole), bootstrap_pairs(right_whole, right, 0))
        return ClipRow(
            title=_title(self.model, way),
            network=way.loaded.name,
            top1=Estimate(**metric_entry(mean(right), share_interval(right))),
            gap=Estimate(**gap),
            agreement=Estimate(**metric_entry(mean(agree), share_interval(agree))),
            right=packed(right),
            tokens=tokens,
            gflops=cost / 1e9,
            whole_gflops=whole_cost / 1e9,
            training_seconds=0.0 if way.loaded is self.model else way.loaded.seconds,
            weights=way.loaded.weights,
        )

    @torch.inference_mode()
    def time(self, way: _Way, batch: int, tries: int) -> ClipTiming:
        """Time one batch with the reduction, in turns with all tokens."""
        noise = torch.rand(batch, *self._shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        clips = noise.to(self.request.device)
        first, second = _Way(self.model, None, 1.0), _Way(copy.deepcopy(way.loaded), way.reducer, way.keep)
        timed = time_in_turns(
            partial(first.forward, clips), partial(second.forward, clips), self.request.repetitions, self.request.device
        )
        network, spent = second.loaded.network, list[float]()
        network.timing = True
        for _ in range(TRIES):
            network.reducing_seconds = 0.0
            second.forward(clips)
            spent.append(network.reducing_seconds)
        return ClipTiming(batch, speedup_of(timed), rounded(float(np.median(spent)) * 1000), tries)

    def about(self, name: str, way: _Way) -> dict[str, Any]:
        """Return the metadata shared by all rows of a method."""
        dataset, model, whole = self.dataset, self.model, self._whole
        assert whole is not None
        counts = np.bincount(self._truth)
        accuracy, floor = float((whole == self._truth).mean()), float(counts.max() / counts.sum())
        return {
            "kind": "clip",
            "model": model.name,
            "method": name,
            "title": _title(model, way),
            "source": METHODS[name].source if name in METHODS else "trained here",
            "training": "none" if name in METHODS else "weights",
            "dataset": dataset.name,
            "num_images": len(whole),
            "whole": {"accuracy": rounded(accuracy), "floor": rounded(floor)},
            "short": accuracy < (1 + floor) / 2,
            "provenance": {
                "device": device_name(self.request.device),
                "processor": processor_of(self.request.device),
                "kernel": "sdpa",
                "repetitions": self.request.repetitions,
                "round_to": 1,
                "formula": FORMULA,
                "weights": model.weights,
                "data": {"sha256": dataset.sha256, "limit": dataset.limit, "side": self._shape[-1]},
                "protocol": describe_protocol(dataset.protocol),
                "code_sha256": code_of(PACKAGE / "pruning", *map(Path, (paired_timing.__file__, timing.__file__))),
                "versions": {"tokbench": __version__, "python": platform.python_version()}
                | {package: importlib.metadata.version(package) for package in ("torch", "numpy")},
            },
        }


def _title(model: LoadedClassifier, way: _Way) -> str:
    assert way.reducer is not None
    return way.reducer.title if way.loaded is model else f"{way.reducer.title}, {way.loaded.name}"


def _disturbed(timing: ClipTiming) -> bool:
    """Return whether the control deviates, which indicates other load on the machine."""
    return abs(timing.speedup.control - 1) > STEADY
