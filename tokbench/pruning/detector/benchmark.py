"""The benchmark of detectors: average precision, operations, and time relative to the full detector."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from tokbench.pruning.detector.candidates import Detector, DetectorCandidate, candidates_of, detect
from tokbench.pruning.detector.result import DetectorRow, DetectorTiming
from tokbench.pruning.kinds import Progress
from tokbench.pruning.paired_timing import rounded, speedup_of, time_in_turns
from tokbench.timing import measure_peak_memory

CHUNK = 50
"""Images per batch when measuring average precision."""


class DetectorBenchmark(Benchmark[DetectorCandidate, DetectorRow]):
    """Benchmark of ways to update a share of the tokens of one detector, on one data set and device."""

    kind, packages = "detector", ("torch", "torchvision", "numpy", "pycocotools")
    formula = "PyTorch's counter, one image; selection of tokens, norms and softmax do not count"

    def __init__(
        self,
        detector: Detector,
        dataset: Dataset,
        device: str,
        config: BenchmarkConfig,
        root: Path | None,
        warn: Callable[[str], None],
    ) -> None:
        """Raises DataError if the data set has no boxes."""
        source = dataset.source
        if not isinstance(source, SyntheticSource) or not source.boxes(0):
            raise DataError(f"{dataset.name} has no boxes; use a dataset with boxes, such as scenes-128")
        profile = detector.training.get("recipe", {}).get("profile")
        full = FullModel(detector.name, device, detector.network.size, detector.weights, profile)
        super().__init__(full, dataset, config, warn)
        self.device, self.root, self.source = device, root, source
        self.whole = DetectorCandidate("full", "full", None, "learned", detector)
        self._precision: Precision | None = None
        self._gflops = 0.0

    @property
    def controls(self) -> tuple[str, ...]:
        return ("random",)

    def candidates(self, name: str, keeps: Sequence[float]) -> Iterator[DetectorCandidate]:
        return candidates_of(name, self.whole.detector, keeps, self.device, self.root)

    def measure_full(self, progress: Progress) -> None:
        if self._precision is None:
            self._precision, _, self._gflops = self.measure(self.whole, progress)
            if self.short:
                ap50 = self.precision.values["ap50"]
                self.warn(
                    f"the full detector has an AP50 of {100 * ap50:.1f} %; below {100 * JUDGED:.0f} %, no verdict on a "
                    "method is drawn"
                )

    @property
    def precision(self) -> Precision:
        """The average precision of the full detector."""
        assert self._precision is not None  # `run` calls `measure_full` first
        return self._precision

    @property
    def num_images(self) -> int:
        return len(self.precision.index)

    @property
    def short(self) -> bool:
        return self.precision.values["ap50"] < JUDGED

    def measure(self, candidate: DetectorCandidate, progress: Progress) -> tuple[Precision, list[int], float]:
        """Return the average precision, the tokens that each layer updates, and the GFLOPs of one image."""
        with candidate.ready() as network:
            precision = self._average_precision(network, partial(progress, f"{label_of(candidate)} images"))
            tokens = list(network.encoder.counts)
            one = torch.zeros(1, 3, network.size, network.size, device=self.device)
            with torch.inference_mode(), FlopCounterMode(display=False) as counter:
                network(one, [0])
        return precision, tokens, counter.get_total_flops() / 1e9

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
        precision, tokens, gflops = self.measure(candidate, progress)
        trained = candidate.trained
        estimates: dict[str, Any] = {name: precision.estimate(name) for name in NUMBERS}
        estimates |= {f"{name}_gap": precision.gap(name, self.precision) for name in NUMBERS}
        return DetectorRow(
            title=candidate.title,
            network=candidate.detector.name,
            **estimates,
            without={name: [rounded(value) for value in precision.without[name].tolist()] for name in NUMBERS},
            tokens=tokens,
            gflops=gflops,
            whole_gflops=self._gflops,
            training_seconds=trained.get("seconds", 0),
            training_images=trained.get("images", 0),
            training_profile=trained.get("recipe", {}).get("profile"),
            weights=candidate.weights,
            pace=[],
        )

    @torch.inference_mode()
    def time(self, candidate: DetectorCandidate, batch: int) -> DetectorTiming:
        side = self.model.side
        images = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
        given = images.to(self.device), list(range(batch))
        with self.whole.ready() as whole, candidate.ready() as network:
            first, second = partial(whole, *given), partial(network, *given)
            timing = time_in_turns(first, second, self.config.repetitions, self.device)
            peak, whole_peak = (measure_peak_memory(call, self.device)[1] for call in (second, first))
        return DetectorTiming(
            batch,
            speedup_of(timing),
            peak_mib=None if peak is None else rounded(peak),
            whole_peak_mib=None if whole_peak is None else rounded(whole_peak),
        )

    def about(self, candidate: DetectorCandidate) -> dict[str, Any]:
        whole = {name: rounded(self.precision.values[name]) for name in NUMBERS}
        return super().about(candidate) | {"whole": whole} | claims_about(candidate.claims)
