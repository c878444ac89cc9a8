"""The kind `detector`: networks that find the boxes of objects, and whose encoder can update a share of the tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from tokbench.data.dataset import open_dataset
from tokbench.protocol.protocol import TOKBENCH
from tokbench.pruning.benchmark import BenchmarkConfig
from tokbench.pruning.claims import Comparison
from tokbench.pruning.detector import table as tables
from tokbench.pruning.detector.average_precision import NUMBERS, interval_without
from tokbench.pruning.detector.benchmark import DetectorBenchmark
from tokbench.pruning.detector.candidates import SELECTIONS, known, load_detector
from tokbench.pruning.detector.claims import CLAIMS
from tokbench.pruning.detector.result import DetectorRow
from tokbench.pruning.kinds import ModelKind, Tables
from tokbench.pruning.request import PruneRequest
from tokbench.pruning.result import PruningResult
from tokbench.pruning.table import with_speeds


class Detectors(ModelKind):
    """Accuracy is average precision, against boxes of the images."""

    plural = "detectors"
    row = DetectorRow
    table: ClassVar[Tables] = tables
    numbers = NUMBERS
    claims = CLAIMS
    keeps = "0.9,0.7,0.5,0.3"

    def known(self, root: Path | None) -> list[str]:
        return known(root)

    def methods(self, model: str, root: Path | None) -> Sequence[str]:
        return tuple(SELECTIONS)

    def open(self, request: PruneRequest, say: Callable[[str], None]) -> DetectorBenchmark:
        config = BenchmarkConfig.of_request(request, (1, 32))
        detector = load_detector(request.model, request.device, request.root)
        dataset = open_dataset(request.data, TOKBENCH, None, request.limit, request.root, request.reading)
        return DetectorBenchmark(detector, dataset, request.device, config, request.root, say)

    def summary(self, row: DetectorRow) -> str:
        return with_speeds(f"AP50 {100 * row.ap50.value:.1f} %", row)

    def compare(
        self, number: str, first: tuple[PruningResult, DetectorRow], second: tuple[PruningResult, DetectorRow]
    ) -> Comparison:
        (one, row), (_, other) = first, second
        value, other_value = (float(getattr(which, number).value) for which in (row, other))
        without = np.subtract(row.without[number], other.without[number])
        low, high = interval_without(value - other_value, without)
        return Comparison(value, other_value, low, high, one.about["num_images"])


KIND = Detectors()
