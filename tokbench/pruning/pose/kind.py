"""The kind `pose`: networks that lift 2-D joints to 3-D joints and remove frames inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from tokbench.pruning.benchmark import BenchmarkConfig
from tokbench.pruning.claims import Comparison
from tokbench.pruning.kinds import CLASSIFIER_OPTIONS, ModelKind, Tables
from tokbench.pruning.pose import table as tables
from tokbench.pruning.pose.benchmark import KEY, NUMBERS, PoseBenchmark, load_lifter
from tokbench.pruning.pose.result import PoseRow
from tokbench.pruning.pose.sequences import SEQUENCES, PoseSequences
from tokbench.pruning.request import PruneRequest
from tokbench.pruning.result import PruningResult
from tokbench.pruning.table import with_speeds
from tokbench.pruning.trained import networks_of_kind
from tokbench.stats.bootstrap import bootstrap_pairs, mean


class PoseLifters(ModelKind):
    """The measure is the mean per-joint position error in millimetres. Sequences are drawn, and networks are compared
    as they were trained, with the frames of their TOML files."""

    plural = "pose lifters"
    row = PoseRow
    table: ClassVar[Tables] = tables
    numbers = NUMBERS
    style = tables.MILLIMETRES
    keeps = ""
    unused = (*CLASSIFIER_OPTIONS, "keep", "data", "split", "column", "first", "follow_links")

    def known(self, root: Path | None) -> list[str]:
        return networks_of_kind(KEY, root)

    def methods(self, model: str, root: Path | None) -> Sequence[str]:
        return [name for name in self.known(root) if name != model]

    def open(self, request: PruneRequest, say: Callable[[str], None]) -> PoseBenchmark:
        config = BenchmarkConfig.of_request(request, (1, 32))
        loaded = load_lifter(request.model, request.device, request.root)
        sequences = PoseSequences(request.limit or SEQUENCES, loaded.network.frames)
        return PoseBenchmark(loaded, sequences, request.device, config, request.root, say)

    def summary(self, row: PoseRow) -> str:
        return with_speeds(f"{row.mpjpe.value:.1f} mm", row)

    def compare(
        self, number: str, first: tuple[PruningResult, PoseRow], second: tuple[PruningResult, PoseRow]
    ) -> Comparison:
        one, other = (np.array(row.errors) for _, row in (first, second))
        interval = bootstrap_pairs(other, one, 0)
        return Comparison(mean(one), mean(other), interval.low, interval.high, len(one))


KIND = PoseLifters()
