"""The benchmark of classifiers of clips: measures methods at several keeps, and saves every measured row."""

from __future__ import annotations

import copy
import importlib.metadata
import platform
from collections.abc import Callable, Iterator, Sequence
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
from tokbench.pruning.benchmark import WHOLE, processor_of
from tokbench.pruning.clips.methods import CONTROLS, METHODS, ClipReducer
from tokbench.pruning.clips.network import FORMULA, ClipClassifier, ClipNetwork
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
    network: ClipNetwork
    weights: dict[str, str]
    seconds: float


def load_clip_classifier(name: str, device: str, root: Path | None) -> LoadedClassifier:
    """Load a network in eval mode. Raises UsageError for other networks, MissingWeights if it was not trained."""
    toml = network_files(root)[name]
    variant, network = open_network(name, toml)
    if not isinstance(network, ClipNetwork):
        raise UsageError(f"{name} is a {type(network).__name__}, not a classifier of clips")
    weights = {path.name: sha256_of(path) for path in shard_paths(variant.file)}
    seconds = float(read_record(toml).get("seconds", 0.0))
    return LoadedClassifier(name, network.to(device).eval().requires_grad_(False), weights, seconds)


@dataclass(frozen=True)
class _Way:
    """One way to run a classifier: with a reducer at a keep, or as it was trained if `keep` is None."""

    loaded: LoadedClassifier
    reducer: ClipReducer | None
    keep: float | None

    @property
    def key(self) -> str:
        return WHOLE if self.keep is None else f"{self.keep:g}"

    def forward(self, clips: Tensor, masks: Tensor | None = None) -> Tensor:
        with self.loaded.network.using(self.reducer, self.keep or 1.0):
            logits: Tensor = self.loaded.network(clips, masks)
        return logits

    def tokens(self, clips: Tensor, masks: Tensor | None) -> Tensor:
        with self.loaded.network.using(self.reducer, self.keep or 1.0):
            return self.loaded.network.tokens(clips, masks)

    def flops(self, frames: int) -> int:
        with self.loaded.network.using(self.reducer, self.keep or 1.0):
            return self.loaded.network.flops(frames)


@dataclass(frozen=True)
class Predictions:
    """Of N clips: the most likely class and the number of tokens, int64 (N,)."""

    classes: np.ndarray
    tokens: np.ndarray


class ClipBenchmark:
    """Benchmark of token reduction in one classifier, on one data set of clips and device."""

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
        self._whole: Predictions | None = None
        self._truth = np.zeros(0, np.int64)
        self._still: np.ndarray | None = None
        self._shape: tuple[int, ...] = ()

    @property
    def controls(self) -> tuple[str, ...]:
        return CONTROLS if isinstance(self.model.network, ClipClassifier) else ()

    def run(
        self, name: str, keeps: Sequence[float], out: Path, progress: Progress
    ) -> Iterator[tuple[PruningResult, str]]:
        """Measure the rows of a method that are not in `out` yet; yield the result and the row's key after each row.

        name: a method, or another network, which is measured as it was trained. Raises UsageError for an unknown method
        or an unsuitable keep, MissingWeights for a network that was not trained.
        """
        whole = self.whole(progress)
        for way in self.ways(name, keeps):
            result = PruningResult(self.about(name, way)).resumed(out)
            key = way.key
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
            if name == self.model.name:
                raise UsageError(f"{name} is the model itself, with which all rows are compared")
            own = load_clip_classifier(name, self.request.device, self.request.root)
            network = own.network
            if isinstance(network, ClipClassifier) and network.reducer is not None:
                yield _Way(own, network.reducer, network.keep)
            else:
                yield _Way(own, None, None)
        else:
            raise UsageError(f"unknown method '{name}'; available: {', '.join(METHODS)}, and networks of this kind")

    def whole(self, progress: Progress) -> Predictions:
        """Return the predictions with all tokens, computed once."""
        if self._whole is None:
            self._whole = self.predict(_Way(self.model, None, None), partial(progress, "whole clips"))
        return self._whole

    @torch.inference_mode()
    def predict(self, way: _Way, progress: Callable[[int, int], None]) -> Predictions:
        found, tokens, truth, still = list[Tensor](), list[Tensor](), list[int](), list[Tensor]()
        reader = self.dataset.batches(_BATCH)
        for batch in reader:
            reader.prefetch()
            self._shape = tuple(batch.reference.shape[1:])
            clips, masks = batch.reference.to(self.request.device) * 2 - 1, batch.extra.get("masks")
            masks = None if masks is None else masks.to(self.request.device)
            found.append(way.forward(clips, masks).argmax(1).cpu())
            tokens.append(way.tokens(clips, masks).cpu())
            truth += [self.labels[name] for name in batch.names]
            if "flow" in batch.extra and "masks" in batch.extra:
                ground = batch.extra["masks"][:, 1:, None] == 0
                still.append((batch.extra["flow"] * ground).flatten(1).abs().amax(1) == 0)
            progress(reader.done, reader.total)
        self.dataset.refuse_empty()
        self._truth = np.array(truth)
        self._still = torch.cat(still).numpy() if still else None
        return Predictions(torch.cat(found).numpy(), torch.cat(tokens).numpy())

    def row(self, way: _Way, whole: Predictions, progress: Progress) -> ClipRow:
        """Measure one way, without its timings."""
        own = self.predict(way, partial(progress, f"{way.key} clips"))
        if own.classes.shape != whole.classes.shape:
            raise DataError("some clips could be read in only one of two passes; run the command again")
        right, right_whole, agree = (
            values.astype(float)
            for values in (own.classes == self._truth, whole.classes == self._truth, own.classes == whole.classes)
        )
        cameras = {} if self._still is None else {"still": right[self._still], "panning": right[~self._still]}
        gap = metric_entry(mean(right) - mean(right_whole), bootstrap_pairs(right_whole, right, 0))
        frames = self._shape[0]
        return ClipRow(
            title=_title(self.model, way),
            network=way.loaded.name,
            top1=_share(right),
            gap=Estimate(**gap),
            agreement=_share(agree),
            right=packed(right),
            cameras={camera: _share(values) for camera, values in cameras.items() if len(values)},
            tokens=rounded(float(own.tokens.mean())),
            most_tokens=int(own.tokens.max()),
            gflops=way.flops(frames) / 1e9,
            whole_gflops=_Way(self.model, None, None).flops(frames) / 1e9,
            training_seconds=0.0 if way.loaded is self.model else way.loaded.seconds,
            weights=way.loaded.weights,
        )

    @torch.inference_mode()
    def time(self, way: _Way, batch: int, tries: int) -> ClipTiming:
        """Time one batch of noise with the reduction, in turns with all tokens. Its masks are one object."""
        noise = torch.rand(batch, *self._shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        clips = noise.to(self.request.device)
        masks = torch.zeros_like(clips[:, :, 0], dtype=torch.uint8)
        first, second = _Way(self.model, None, None), _Way(copy.deepcopy(way.loaded), way.reducer, way.keep)
        timed = time_in_turns(
            partial(first.forward, clips, masks), partial(second.forward, clips, masks), self.request.repetitions,
            self.request.device,
        )  # fmt: skip
        network, spent = second.loaded.network, list[float]()
        network.timing = True
        for _ in range(TRIES):
            network.reducing_seconds = 0.0
            second.forward(clips, masks)
            spent.append(network.reducing_seconds)
        return ClipTiming(batch, speedup_of(timed), rounded(float(np.median(spent)) * 1000), tries)

    def about(self, name: str, way: _Way) -> dict[str, Any]:
        """Return the metadata shared by all rows of a method."""
        dataset, model, whole = self.dataset, self.model, self._whole
        assert whole is not None
        counts = np.bincount(self._truth)
        accuracy, floor = float((whole.classes == self._truth).mean()), float(counts.max() / counts.sum())
        return {
            "kind": "clip",
            "model": model.name,
            "method": name,
            "title": _title(model, way),
            "source": METHODS[name].source if name in METHODS else "trained here",
            "training": "none" if name in METHODS else "weights",
            "dataset": dataset.name,
            "num_images": len(whole.classes),
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
    if way.reducer is None:
        return way.loaded.name
    return way.reducer.title if way.loaded is model else f"{way.reducer.title}, {way.loaded.name}"


def _share(values: np.ndarray) -> Estimate:
    """Return the share of ones among values (n,) with its interval."""
    return Estimate(**metric_entry(mean(values), share_interval(values)))


def _disturbed(timing: ClipTiming) -> bool:
    """Return whether the control deviates, which indicates other load on the machine."""
    return abs(timing.speedup.control - 1) > STEADY
