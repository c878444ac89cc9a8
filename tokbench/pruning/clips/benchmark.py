"""The benchmark of classifiers of clips: accuracy, operations, and time relative to the full network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokbench.data.dataset import Dataset
from tokbench.errors import DataError
from tokbench.pruning.benchmark import Benchmark, BenchmarkConfig, FullModel, label_of
from tokbench.pruning.claims import JUDGED, claims_about
from tokbench.pruning.clips.candidates import KEY, ClipCandidate, candidates_of
from tokbench.pruning.clips.methods import CONTROLS
from tokbench.pruning.clips.network import FORMULA, ClipClassifier, ClipNetwork
from tokbench.pruning.clips.result import ClipRow
from tokbench.pruning.paired_timing import TRIES, rounded, time_batch
from tokbench.pruning.request import Progress
from tokbench.pruning.result import Estimate, SelectorTiming, packed
from tokbench.pruning.trained import TrainedNetwork
from tokbench.stats.bootstrap import bootstrap_pairs, mean, metric_entry, share_interval

CHUNK = 32
"""Clips per batch when measuring accuracy."""


@dataclass(frozen=True)
class Predictions:
    """Of N clips: positions, labels, the most likely class and the number of tokens, int64 (N,).

    still: bool (N,), whether the camera stands still; None if the data do not state it.
    """

    index: np.ndarray
    labels: np.ndarray
    classes: np.ndarray
    tokens: np.ndarray
    still: np.ndarray | None

    @property
    def right(self) -> np.ndarray:
        """Whether the most likely class is correct, (N,), 1 or 0."""
        return (self.classes == self.labels).astype(float)


class ClipBenchmark(Benchmark[ClipCandidate, ClipRow, Predictions, Dataset]):
    """Benchmark of ways to reduce the tokens of one classifier, on one data set of clips and device."""

    kind, packages, formula = KEY, ("torch", "numpy"), FORMULA
    sources = ("nn/vit.py",)

    def __init__(
        self,
        loaded: TrainedNetwork[ClipNetwork],
        dataset: Dataset,
        device: str,
        config: BenchmarkConfig,
        root: Path | None,
        say: Callable[[str], None],
    ) -> None:
        """Raises DataError if the clips have no labels, or labels that the network does not have."""
        labels, classes = dataset.source.labels(), loaded.network.classes
        if labels is None:
            raise DataError(f"{dataset.name} has no labels; use clips with labels, such as sprites")
        if max(labels.values()) >= classes:
            raise DataError(
                f"{dataset.name} has the label {max(labels.values())}, but {loaded.name} has {classes} classes; use "
                "the data that it was trained for"
            )
        full = FullModel(loaded.name, device, loaded.network.size, loaded.weights, loaded.profile)
        super().__init__(full, dataset, config, say)
        self.device, self.root, self.labels = device, root, labels
        self.whole = ClipCandidate("full", "full", None, loaded)
        self._shape: tuple[int, ...] = ()

    @property
    def controls(self) -> tuple[str, ...]:
        return CONTROLS if isinstance(self.whole.loaded.network, ClipClassifier) else ()

    def candidates(self, name: str, keeps: Sequence[float]) -> Iterator[ClipCandidate]:
        return candidates_of(name, self.whole.loaded, keeps, self.device, self.root)

    def measure_whole(self, progress: Progress) -> Predictions:
        return self.predict(self.whole, progress)

    @property
    def quality(self) -> str:
        share = 100 * self.full.right.mean()
        return f"the full network classifies {share:.1f} % of the clips correctly; below {100 * JUDGED:.0f} %"

    @property
    def num_images(self) -> int:
        return len(self.full.index)

    @property
    def short(self) -> bool:
        return bool(self.full.right.mean() < JUDGED)

    @torch.inference_mode()
    def predict(self, candidate: ClipCandidate, progress: Progress) -> Predictions:
        index, labels, still = list[int](), list[int](), list[Tensor]()
        classes, tokens = list[Tensor](), list[Tensor]()
        reader = self.dataset.batches(CHUNK)
        for batch in reader:
            reader.prefetch()
            self._shape = tuple(batch.reference.shape[1:])
            clips, masks = batch.reference.to(self.device) * 2 - 1, batch.extra.get("masks")
            masks = None if masks is None else masks.to(self.device)
            classes.append(candidate.forward(clips, masks).argmax(1).cpu())
            tokens.append(candidate.tokens(clips, masks).cpu())
            index += batch.index.tolist()
            labels += [self.labels[name] for name in batch.names]
            if "flow" in batch.extra and "masks" in batch.extra:
                ground = batch.extra["masks"][:, 1:, None] == 0
                still.append((batch.extra["flow"] * ground).flatten(1).abs().amax(1) == 0)
            progress(f"{label_of(candidate)} clips", reader.done, reader.total)
        self.dataset.refuse_empty()
        return Predictions(
            np.array(index), np.array(labels), torch.cat(classes).numpy(), torch.cat(tokens).numpy(),
            torch.cat(still).numpy() if still else None,
        )  # fmt: skip

    def row(self, candidate: ClipCandidate, progress: Progress) -> ClipRow:
        """Raises DataError if another pass could not read the same clips."""
        own, full = self.predict(candidate, progress), self.full
        if not np.array_equal(own.index, full.index):
            raise DataError("some clips could be read in only one of two passes; run the command again")
        cameras = {} if own.still is None else {"still": own.right[own.still], "panning": own.right[~own.still]}
        gap = metric_entry(mean(own.right) - mean(full.right), bootstrap_pairs(full.right, own.right, 0))
        frames = self._shape[0]
        return ClipRow(
            top1=_share(own.right),
            top1_gap=Estimate(**gap),
            agreement=_share((own.classes == full.classes).astype(float)),
            right=packed(own.right),
            cameras={camera: _share(values) for camera, values in cameras.items() if len(values)},
            tokens=rounded(float(own.tokens.mean())),
            most_tokens=int(own.tokens.max()),
            gflops=candidate.flops(frames) / 1e9,
            whole_gflops=self.whole.flops(frames) / 1e9,
            **candidate.row_fields(),
        )

    @torch.inference_mode()
    def time(self, candidate: ClipCandidate, batch: int) -> SelectorTiming:
        """Time a batch of noise; its exact masks show one object."""
        noise = torch.rand(batch, *self._shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        clips = noise.to(self.device)
        masks = torch.zeros_like(clips[:, :, 0], dtype=torch.uint8)
        first, second = (partial(one.forward, clips, masks) for one in (self.whole, candidate))
        timing = time_batch(first, second, batch, self.config.repetitions, self.device)
        network, spent = candidate.loaded.network, list[float]()
        network.timing = True
        for _ in range(TRIES):
            network.reducing_seconds = 0.0
            second()
            spent.append(network.reducing_seconds)
        network.timing = False
        return SelectorTiming(**vars(timing), selector_ms=rounded(float(np.median(spent)) * 1000))

    def about(self, candidate: ClipCandidate) -> dict[str, Any]:
        counts = np.bincount(self.full.labels)
        whole = {"top1": rounded(float(self.full.right.mean())), "floor": rounded(float(counts.max() / counts.sum()))}
        return super().about(candidate) | {"whole": whole} | claims_about(candidate.claims)


def _share(values: np.ndarray) -> Estimate:
    """Return the share of ones among values (n,) with its interval."""
    return Estimate(**metric_entry(mean(values), share_interval(values)))
