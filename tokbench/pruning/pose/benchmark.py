"""The benchmark of pose lifters: joint errors, operations, and time relative to the network with all frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tokbench.errors import UsageError
from tokbench.nn.pose_lifter import PoseLifter, joint_errors
from tokbench.pruning.benchmark import Benchmark, BenchmarkConfig, FullModel, label_of
from tokbench.pruning.claims import JUDGED, claims_about
from tokbench.pruning.paired_timing import rounded, time_batch
from tokbench.pruning.pose.result import PoseRow
from tokbench.pruning.pose.sequences import PoseSequences
from tokbench.pruning.request import Progress
from tokbench.pruning.result import BatchTiming, Estimate
from tokbench.pruning.trained import NetworkCandidate, TrainedNetwork, load_trained, networks_of_kind
from tokbench.stats.bootstrap import bootstrap, bootstrap_pairs, mean, metric_entry

KEY = "pose"
"""The key of the kind in `tokbench.pruning.kind_names.KINDS`."""

NUMBERS = ("mpjpe",)
"""The fields of a row that claims compare."""

PoseCandidate = NetworkCandidate[PoseLifter]


@dataclass(frozen=True)
class PoseErrors:
    """Errors of a network in millimetres, float64 (N,). floor: mean error of the best constant pose."""

    network: np.ndarray
    floor: float


def load_lifter(name: str, device: str, root: Path | None) -> TrainedNetwork[PoseLifter]:
    """Load a trained pose lifter. Raises MissingWeights, and UsageError for other networks."""
    return load_trained(name, KEY, PoseLifter, NUMBERS, device, root)


class PoseBenchmark(Benchmark[PoseCandidate, PoseRow, PoseErrors, PoseSequences]):
    """Benchmark of pose lifters against one that has all frames in all blocks, on drawn sequences and one device."""

    kind, packages = KEY, ("torch", "numpy")
    formula = (
        "two FLOPs per multiply-add of the linear layers and of attention; choosing and interpolating frames count as "
        "0 and take time"
    )
    sources = ("nn/pose_lifter.py", "nn/skeleton.py", "nn/vit.py")

    def __init__(
        self,
        loaded: TrainedNetwork[PoseLifter],
        sequences: PoseSequences,
        device: str,
        config: BenchmarkConfig,
        root: Path | None,
        say: Callable[[str], None],
    ) -> None:
        full = FullModel(loaded.name, device, loaded.network.frames, loaded.weights, loaded.profile)
        super().__init__(full, sequences, config, say)
        self.device, self.root = device, root
        self.whole = PoseCandidate("full", "full", None, loaded)

    def candidates(self, name: str, keeps: Sequence[float]) -> Iterator[PoseCandidate]:
        """Yield another pose lifter as it was trained; it has no keep ratio.

        Raises UsageError for the model itself, an unknown name or another number of frames, MissingWeights for an
        untrained network.
        """
        if name == self.model.name:
            raise UsageError(f"{name} is the model itself, with which all rows are compared")
        if name not in networks_of_kind(KEY, self.root):
            raise UsageError(
                f"unknown method '{name}'; available: {', '.join(networks_of_kind(KEY, self.root))}, and all"
            )
        other = load_lifter(name, self.device, self.root)
        if other.network.frames != self.dataset.frames:
            raise UsageError(
                f"{name} has {other.network.frames} frames, but {self.model.name} {self.dataset.frames}; compare "
                "networks with equal frames"
            )
        yield PoseCandidate(name, name, None, other, own=True)

    def measure_whole(self, progress: Progress) -> PoseErrors:
        poses = torch.cat([poses for _, poses in self.dataset.batches()])
        constant = poses.mean((0, 1)).expand_as(poses)
        floor = float(joint_errors(constant, poses).double().mean()) * 1000
        return PoseErrors(self.errors(self.whole, progress), floor)

    @property
    def num_images(self) -> int:
        return self.dataset.limit

    @property
    def judged(self) -> float:
        """The largest error of the full network with which verdicts are drawn, in millimetres."""
        return (1 - JUDGED) * self.full.floor

    @property
    def short(self) -> bool:
        return mean(self.full.network) > self.judged

    @property
    def quality(self) -> str:
        return f"the full network has an error of {mean(self.full.network):.1f} mm; above {self.judged:.1f} mm"

    @torch.inference_mode()
    def errors(self, candidate: PoseCandidate, progress: Progress) -> np.ndarray:
        """Return the error of each sequence in millimetres, (N,), to a thousandth."""
        found = list[np.ndarray]()
        for points, poses in self.dataset.batches():
            lifted = candidate.loaded.network(points.to(self.device)).cpu()
            found.append(joint_errors(lifted, poses).double().numpy() * 1000)
            progress(f"{label_of(candidate)} sequences", sum(map(len, found)), self.dataset.limit)
        return np.concatenate(found).round(3)

    def row(self, candidate: PoseCandidate, progress: Progress) -> PoseRow:
        own, whole, network = self.errors(candidate, progress), self.full.network, candidate.loaded.network
        gap = metric_entry(mean(own) - mean(whole), bootstrap_pairs(whole, own, 0))
        return PoseRow(
            mpjpe=Estimate(**metric_entry(mean(own), bootstrap(own, 0))),
            mpjpe_gap=Estimate(**gap),
            errors=own.tolist(),
            frames=list(network.counts),
            gflops=network.flops() / 1e9,
            whole_gflops=self.whole.loaded.network.flops() / 1e9,
            **candidate.row_fields(),
        )

    @torch.inference_mode()
    def time(self, candidate: PoseCandidate, batch: int) -> BatchTiming:
        points = self.dataset.draw(0, batch)[0].to(self.device)
        first, second = (partial(one.loaded.network, points) for one in (self.whole, candidate))
        return time_batch(first, second, batch, self.config.repetitions, self.device)

    def about(self, candidate: PoseCandidate) -> dict[str, Any]:
        errors = self.full.network
        interval = bootstrap(errors, 0)
        whole = metric_entry(mean(errors), interval) | {
            "floor": rounded(self.full.floor), "frames": list(self.whole.loaded.network.counts),
        }  # fmt: skip
        return super().about(candidate) | {"whole": whole} | claims_about(candidate.claims)
