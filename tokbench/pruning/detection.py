"""Detectors whose encoder updates a share of the tokens: average precision, operations and time of each selection."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tokbench.data.dataset import Dataset, open_dataset
from tokbench.data.reading import DEFAULTS, ReadOptions
from tokbench.data.sources.synthetic import SyntheticSource
from tokbench.errors import DataError, UsageError
from tokbench.evaluation.seeds import image_seeds
from tokbench.io.atomic import write_atomically
from tokbench.io.hashing import sha256_of
from tokbench.nn.detection import corners
from tokbench.nn.detr import FocusDETR
from tokbench.nn.focus import Selection
from tokbench.paths import slug
from tokbench.protocol.protocol import TOKBENCH
from tokbench.pruning.average_precision import NUMBERS, Detections, Precision, average_precision
from tokbench.pruning.paired_timing import PairedTiming, time_in_turns
from tokbench.results.markdown import table
from tokbench.timing import device_name
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.registry import network_files, read_variant
from tokbench.training.zoo import open_network
from tokbench.weights.shards import shard_paths

KIND = "detector"
"""The entry `kind` in the TOML file of a network of this module."""

SELECTIONS: tuple[Selection, ...] = ("learned", "random", "norm")
"""The selections that every detector can use; other methods are names of detectors with their own selection."""

KEEPS = "0.9,0.7,0.5,0.3"
"""The default of --keep."""

JUDGED = 0.8
"""The smallest AP50 of the full network with which the other rows can be judged."""

_BATCH = 50


def is_detector(name: str, root: Path | None = None) -> bool:
    """Return whether a network of adapters/*/network.py is a detector."""
    files = network_files(root)
    return name in files and read_variant(files[name]).get("kind") == KIND


@dataclass(frozen=True)
class DetectionConfig:
    """Settings of the measurements.

    keeps: shares of tokens that the first layer updates. batches: batch sizes for timing; empty for no timing.
    repetitions: timings per batch size. limit: number of images.
    """

    keeps: tuple[float, ...]
    batches: tuple[int, ...]
    repetitions: int
    limit: int | None = None


@dataclass(frozen=True)
class DetectionRow:
    """One way to run a detector.

    method: a selection or the name of a network. keep: None for the full network. tokens: updated by each layer.
    gflops: of one image, by PyTorch's counter. timings: by batch size, against the full network.
    """

    method: str
    keep: float | None
    precision: Precision
    tokens: list[int]
    gflops: float
    timings: dict[int, PairedTiming]


def _load(name: str, device: str, root: Path | None) -> tuple[FocusDETR, dict[str, str]]:
    """Return a trained detector in eval mode and the hashes of its weights. Raises MissingWeights, UsageError."""
    if not is_detector(name, root):
        known = [other for other in network_files(root) if is_detector(other, root)]
        raise UsageError(f"'{name}' is neither {', '.join(SELECTIONS)} nor one of the detectors {', '.join(known)}")
    variant: AdapterConfig
    variant, network = open_network(name, network_files(root)[name])
    if not isinstance(network, FocusDETR):
        raise UsageError(f"{name} is a {type(network).__name__}, not a detector whose tokens can be reduced")
    weights = {path.name: sha256_of(path) for path in shard_paths(variant.file)}
    return network.to(device).eval().requires_grad_(False), weights


@contextmanager
def applied(network: FocusDETR, keep: float, selection: Selection) -> Iterator[None]:
    """Update this share of the tokens, by this selection, inside the `with` block."""
    encoder = network.encoder
    before = encoder.keep, encoder.selection
    encoder.keep, encoder.selection = keep, selection
    try:
        yield
    finally:
        encoder.keep, encoder.selection = before


@torch.inference_mode()
def detect(network: FocusDETR, images: Tensor, seeds: Sequence[int]) -> list[Detections]:
    """Return the best pairs of query and class in images (B, 3, H, W) in [-1, 1], as many as there are queries.

    seeds: one per image, for the random selection.
    """
    logits, boxes = network(images, seeds)
    scores, places = logits.sigmoid().flatten(1).topk(logits.shape[1], dim=1)
    classes = logits.shape[2]
    return [
        Detections(own.cpu().numpy(), (place % classes).cpu().numpy(), corners(box[place // classes]).cpu().numpy())
        for own, place, box in zip(scores, places, boxes, strict=True)
    ]


@dataclass
class DetectionBenchmark:
    """Measures ways to run detectors against a full network on one dataset and device."""

    model: str
    dataset: Dataset
    device: str
    config: DetectionConfig
    root: Path | None = None

    def __post_init__(self) -> None:
        self.whole, self.weights = _load(self.model, self.device, self.root)
        if not isinstance(self.dataset.source, SyntheticSource) or not self.dataset.source.boxes(0):
            raise DataError(f"{self.dataset.name} has no boxes; use a dataset with boxes, such as scenes-128")

    def rows(self, methods: Sequence[str], progress: Callable[[str, int, int], None]) -> Iterator[DetectionRow]:
        """Yield the row of the full network, then one row for each method and keep.

        Raises UsageError for an unknown method, MissingWeights for a network that is not trained.
        """
        loaded = {name: None if name in SELECTIONS else _load(name, self.device, self.root) for name in methods}
        yield self._row("full", self.whole, None, "learned", progress)
        for name, found in loaded.items():
            if found is None:
                network, selection = copy.deepcopy(self.whole), next(one for one in SELECTIONS if one == name)
            else:
                network, selection = found[0], found[0].encoder.selection
                self.weights |= found[1]
            for keep in self.config.keeps:
                yield self._row(name, network, keep, selection, progress)

    def _row(
        self,
        method: str,
        network: FocusDETR,
        keep: float | None,
        selection: Selection,
        progress: Callable[[str, int, int], None],
    ) -> DetectionRow:
        with applied(self.whole, 1.0, "learned"), applied(network, keep or 1.0, selection):
            precision = self._precision(network, partial(progress, f"{method} {keep or ''}".strip()))
            tokens = list(network.encoder.counts)
            one = torch.zeros(1, 3, network.size, network.size, device=self.device)
            with torch.inference_mode(), FlopCounterMode(display=False) as counter:
                network(one, [0])
            timings = {} if network is self.whole else {size: self._time(network, size) for size in self.config.batches}
        return DetectionRow(method, keep, precision, tokens, counter.get_total_flops() / 1e9, timings)

    def _precision(self, network: FocusDETR, progress: Callable[[int, int], None]) -> Precision:
        source, found, truths = self.dataset.source, list[Detections](), list[np.ndarray]()
        assert isinstance(source, SyntheticSource)
        reader = self.dataset.batches(_BATCH)
        for images in reader:
            reader.prefetch()
            positions = images.index.tolist()
            found += detect(network, images.reference.to(self.device) * 2 - 1, image_seeds(0, positions, 1))
            truths += [np.array(source.boxes(position)) for position in positions]
            progress(reader.done, reader.total)
        self.dataset.refuse_empty()
        return average_precision(found, truths, network.size)

    @torch.inference_mode()
    def _time(self, network: FocusDETR, size: int) -> PairedTiming:
        images = torch.randn(size, 3, network.size, network.size, generator=torch.Generator().manual_seed(0))
        given = images.to(self.device), list(range(size))
        return time_in_turns(
            partial(self.whole, *given), partial(network, *given), self.config.repetitions, self.device
        )

    def save(self, rows: Sequence[DetectionRow], out: Path) -> Path:
        """Write the rows below the results folder `out`, without timings of single calls; return the path."""
        limit = f".n{self.config.limit}" if self.config.limit else ""
        name = f"{self.dataset.name}{limit}.{slug(device_name(self.device))}.json"
        facts = {
            "model": self.model,
            "dataset": self.dataset.name,
            "data_sha256": self.dataset.sha256,
            "weights": self.weights,
            "rows": [_facts(row, rows[0]) for row in rows],
        }
        target = out / slug(self.model) / "detection" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, (json.dumps(facts, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
        return target


def open_detection_data(
    data: str, limit: int | None, root: Path | None = None, reading: ReadOptions = DEFAULTS
) -> Dataset:
    """Open a dataset with boxes."""
    return open_dataset(data, TOKBENCH, None, limit, root, reading)


def _facts(row: DetectionRow, whole: DetectionRow) -> dict[str, Any]:
    numbers = {name: vars(row.precision.estimate(name)) for name in NUMBERS}
    gaps = {f"{name}_gap": vars(row.precision.gap(name, whole.precision)) for name in NUMBERS}
    timings = {
        str(size): {
            "speedup": one.ratio,
            "interval": list(one.interval()),
            "control": one.control,
            "measured": one.measured,
        }
        for size, one in row.timings.items()
    }
    return numbers | gaps | {
        "method": row.method, "keep": row.keep, "tokens": row.tokens, "gflops": row.gflops, "timings": timings,
    }  # fmt: skip


def markdown(rows: Sequence[DetectionRow], model: str) -> str:
    """Return the table of the rows, of which the first one is the full network, with its explanation."""
    whole = rows[0]
    sizes = sorted({size for row in rows for size in row.timings})
    head = ["method", "keep", "AP50 ↑", "AP ↑", "AP50 - full", "updated tokens", "GFLOPs"]
    head += [f"speed-up, batch {size}" for size in sizes]
    body = []
    for row in rows:
        shown = [_shown(row.precision.estimate(name)) for name in NUMBERS]
        gap = "-" if row is whole else _shown(row.precision.gap("ap50", whole.precision), signed=True)
        tokens = f"{sum(row.tokens) / len(row.tokens):,.0f} of {whole.tokens[0]:,}"
        speed = [_speed(row.timings.get(size)) for size in sizes]
        keep = "-" if row.keep is None else f"{row.keep:g}"
        body.append([row.method, keep, *shown, gap, tokens, f"{row.gflops:.3f}", *speed])
    low = whole.precision.values["ap50"] < JUDGED
    note = f" The full network has an AP50 under {JUDGED:g}, so the other rows are not judged." if low else ""
    return (
        f"{whole.precision.count:,} images, full network `{model}`. Tokens: mean over the layers. ± is half of the "
        f"95 % interval over images (jackknife of groups).{note}\n\n{table(head, body)}"
    )


def _shown(estimate: Any, signed: bool = False) -> str:
    value = f"{estimate.value:+.3f}" if signed else f"{estimate.value:.3f}"
    return f"{value} ± {(estimate.high - estimate.low) / 2:.3f}"


def _speed(timing: PairedTiming | None) -> str:
    if timing is None:
        return "-"
    low, high = timing.interval()
    return f"{timing.ratio:.2f} [{low:.2f}, {high:.2f}]" if timing.measured else "none measured"
