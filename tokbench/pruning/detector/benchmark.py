"""The benchmark of detectors: average precision, operations, and time relative to the full detector."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from tokbench.data.dataset import Dataset
from tokbench.data.sources.synthetic import SyntheticSource
from tokbench.errors import DataError
from tokbench.evaluation.seeds import image_seeds
from tokbench.nn.detr import FocusDETR
from tokbench.pruning.benchmark import Benchmark, BenchmarkConfig, FullModel, label_of
from tokbench.pruning.claims import JUDGED, claims_about
from tokbench.pruning.detector.average_precision import NUMBERS, Detections, Precision, average_precision
from tokbench.pruning.detector.candidates import KEY, DetectorCandidate, candidates_of, detect
from tokbench.pruning.detector.result import DetectorRow
from tokbench.pruning.paired_timing import rounded, time_batch
from tokbench.pruning.request import Progress
from tokbench.pruning.result import BatchTiming
from tokbench.pruning.trained import TrainedNetwork

CHUNK = 50
"""Images per batch when measuring average precision."""


@dataclass(frozen=True)
class Measured:
    """What is measured of one way to run a detector. tokens: that each layer updates. gflops: of one image."""

    precision: Precision
    tokens: list[int]
    gflops: float


class DetectorBenchmark(Benchmark[DetectorCandidate, DetectorRow, Measured, Dataset]):
    """Benchmark of ways to update a share of the tokens of one detector, on one data set and device."""

    kind, packages = KEY, ("torch", "torchvision", "numpy", "pycocotools")
    formula = "PyTorch's counter, one image; selection of tokens, norms and softmax do not count"
    sources = ("nn/detr.py", "nn/focus.py", "nn/detection.py", "nn/vit.py", "data/synthetic/scenes.py")

    def __init__(
        self,
        detector: TrainedNetwork[FocusDETR],
        dataset: Dataset,
        device: str,
        config: BenchmarkConfig,
        root: Path | None,
        say: Callable[[str], None],
    ) -> None:
        """Raises DataError if the data set has no boxes."""
        source = dataset.source
        if not isinstance(source, SyntheticSource) or not source.boxes(0):
            raise DataError(f"{dataset.name} has no boxes; use a dataset with boxes, such as scenes-128")
        full = FullModel(detector.name, device, detector.network.size, detector.weights, detector.profile)
        super().__init__(full, dataset, config, say)
        self.device, self.root, self.source = device, root, source
        self.whole = DetectorCandidate("full", "full", None, detector)

    @property
    def controls(self) -> tuple[str, ...]:
        return ("random",)

    def candidates(self, name: str, keeps: Sequence[float]) -> Iterator[DetectorCandidate]:
        return candidates_of(name, self.whole.loaded, keeps, self.device, self.root)

    def measure_whole(self, progress: Progress) -> Measured:
        return self.measure(self.whole, progress)

    @property
    def quality(self) -> str:
        ap50 = 100 * self.full.precision.values["ap50"]
        return f"the full detector has an AP50 of {ap50:.1f} %; below {100 * JUDGED:.0f} %"

    @property
    def num_images(self) -> int:
        return len(self.full.precision.index)

    @property
    def short(self) -> bool:
        return self.full.precision.values["ap50"] < JUDGED

    def measure(self, candidate: DetectorCandidate, progress: Progress) -> Measured:
        with candidate.ready() as network:
            precision = self._average_precision(network, partial(progress, f"{label_of(candidate)} images"))
            tokens = list(network.encoder.counts)
            one = torch.zeros(1, 3, network.size, network.size, device=self.device)
            with torch.inference_mode(), FlopCounterMode(display=False) as counter:
                network(one, [0])
        return Measured(precision, tokens, counter.get_total_flops() / 1e9)

    def _average_precision(self, network: FocusDETR, progress: Callable[[int, int], None]) -> Precision:
        index, found, truths = list[int](), list[Detections](), list[np.ndarray]()
        reader = self.dataset.batches(CHUNK)
        for images in reader:
            reader.prefetch()
            positions = images.index.tolist()
            index += positions
            found += detect(network, images.reference.to(self.device) * 2 - 1, image_seeds(0, positions, 1))
            truths += [np.array(self.source.boxes(position)) for position in positions]
            progress(reader.done, reader.total)
        self.dataset.refuse_empty()
        return average_precision(found, truths, index, network.size)

    def row(self, candidate: DetectorCandidate, progress: Progress) -> DetectorRow:
        own, full = self.measure(candidate, progress), self.full
        estimates: dict[str, Any] = {name: own.precision.estimate(name) for name in NUMBERS}
        estimates |= {f"{name}_gap": own.precision.gap(name, full.precision) for name in NUMBERS}
        return DetectorRow(
            **estimates,
            without={name: [rounded(value) for value in own.precision.without[name].tolist()] for name in NUMBERS},
            tokens=own.tokens,
            gflops=own.gflops,
            whole_gflops=full.gflops,
            **candidate.row_fields(),
        )

    @torch.inference_mode()
    def time(self, candidate: DetectorCandidate, batch: int) -> BatchTiming:
        side = self.model.side
        images = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
        given = images.to(self.device), list(range(batch))
        with self.whole.ready() as whole, candidate.ready() as network:
            first, second = partial(whole, *given), partial(network, *given)
            return time_batch(first, second, batch, self.config.repetitions, self.device)

    def about(self, candidate: DetectorCandidate) -> dict[str, Any]:
        whole = {name: rounded(self.full.precision.values[name]) for name in NUMBERS}
        return super().about(candidate) | {"whole": whole} | claims_about(candidate.claims)
