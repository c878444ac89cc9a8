"""Pose lifters that remove frames: joint error, operations and time of each against a network with all frames."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tokbench.analysis.ablations import Ablation, Finding, ablations
from tokbench.analysis.compare import Difference, Verdict
from tokbench.errors import UsageError
from tokbench.io.atomic import write_atomically
from tokbench.io.hashing import code_of, sha256_of
from tokbench.nn import pose_lifter, skeleton
from tokbench.nn.pose_lifter import PoseLifter, joint_errors
from tokbench.nn.skeleton import draw_sequences
from tokbench.paths import PACKAGE, slug
from tokbench.pruning import paired_timing
from tokbench.pruning.paired_timing import PairedTiming, time_in_turns
from tokbench.results.markdown import table
from tokbench.stats.bootstrap import Interval, bootstrap, bootstrap_pairs, metric_entry
from tokbench.timing import device_name
from tokbench.tokenizers.registry import network_files, read_variant
from tokbench.tokenizers.training_record import read_record
from tokbench.training.zoo import open_network
from tokbench.weights.shards import shard_paths

KIND = "pose"
"""The entry `kind` in the TOML file of a network of this module."""

NUMBER = "mpjpe"
"""Name of the mean per-joint position error, in millimetres, in results and ablations."""

SEQUENCES = 500
"""Default number of test sequences."""

FIRST_SEED = pose_lifter.TRAINING_SEEDS
"""Seed of the first test sequence. Training draws smaller seeds, so it sees none of these."""

FORMULA = (
    "FLOPs: two per multiply-add of the linear layers and of attention, by one formula; choosing and interpolating "
    "frames count as 0 and take time"
)

_BATCH = 25


def is_pose_lifter(name: str, root: Path | None = None) -> bool:
    """Return whether a network of adapters/*/network.py is a pose lifter."""
    files = network_files(root)
    return name in files and read_variant(files[name]).get("kind") == KIND


def pose_lifters(root: Path | None = None) -> dict[str, Path]:
    """Return the TOML files of the networks of adapters/*/network.py that are pose lifters, by name."""
    return {name: toml for name, toml in network_files(root).items() if is_pose_lifter(name, root)}


@dataclass(frozen=True)
class PoseConfig:
    """Settings of the measurements.

    sequences: number of test sequences. batches: batch sizes for timing; empty for no timing. repetitions: timings per
    batch size. tries: largest number of timing runs where the control deviates.
    """

    sequences: int
    batches: tuple[int, ...]
    repetitions: int
    tries: int = 3


@dataclass(frozen=True)
class PoseRow:
    """The measurements of one network.

    errors: of each test sequence in millimetres, float64 (N,). counts: frames that enter each pair of blocks. timings:
    by batch size, against the network with all frames; none for that one. short: whether it was trained on a CPU.
    """

    name: str
    errors: np.ndarray
    counts: tuple[int, ...]
    gflops: float
    timings: dict[int, PairedTiming]
    weights: dict[str, str]
    short: bool

    @property
    def interval(self) -> Interval:
        """The 95 % interval of the mean error over sequences."""
        return bootstrap(self.errors, 0)

    def gap(self, whole: PoseRow) -> tuple[float, Interval]:
        """Return the mean error minus that of another network, with its interval paired by sequence."""
        return float(self.errors.mean() - whole.errors.mean()), bootstrap_pairs(whole.errors, self.errors, 0)


def _load(name: str, device: str, root: Path | None) -> tuple[PoseLifter, dict[str, str], bool]:
    """Return a trained network in eval mode, the hashes of its weights, and whether it was trained on a CPU.

    Raises UsageError for an unknown name, MissingWeights if it is not trained.
    """
    known = pose_lifters(root)
    if name not in known:
        raise UsageError(f"'{name}' is no pose lifter; available: {', '.join(known) or 'none'}, and all")
    variant, network = open_network(name, known[name])
    if not isinstance(network, PoseLifter):
        raise UsageError(f"{name} is a {type(network).__name__}, not a pose lifter, although its TOML says so")
    weights = {path.name: sha256_of(path) for path in shard_paths(variant.file)}
    short = read_record(known[name]).get("recipe", {}).get("profile") == "cpu"
    return network.to(device).eval().requires_grad_(False), weights, short


@dataclass
class PoseBenchmark:
    """Measures pose lifters against one with all frames on the same drawn sequences."""

    model: str
    device: str
    config: PoseConfig
    root: Path | None = None

    def __post_init__(self) -> None:
        self.whole, self._weights, self._short = _load(self.model, self.device, self.root)

    def rows(self, methods: Sequence[str], progress: Callable[[str, int, int], None]) -> Iterator[PoseRow]:
        """Yield the row of the full network, then one of each method, a name of a pose lifter.

        Raises UsageError for an unknown name or another number of frames, MissingWeights for an untrained network.
        """
        loaded = {name: _load(name, self.device, self.root) for name in methods if name != self.model}
        for name, (network, _, _) in loaded.items():
            if network.frames != self.whole.frames:
                raise UsageError(f"{name} has {network.frames} frames, but {self.model} {self.whole.frames}")
        for name, found in ({self.model: (self.whole, self._weights, self._short)} | loaded).items():
            network, weights, short = found
            errors = self._errors(network, partial(progress, f"{name} sequences"))
            timings = {} if network is self.whole else {size: self._time(network, size) for size in self.config.batches}
            yield PoseRow(name, errors, network.counts, network.flops() / 1e9, timings, weights, short)

    @torch.inference_mode()
    def _errors(self, network: PoseLifter, progress: Callable[[int, int], None]) -> np.ndarray:
        found, count = list[np.ndarray](), self.config.sequences
        for start in range(0, count, _BATCH):
            seeds = range(FIRST_SEED + start, FIRST_SEED + min(start + _BATCH, count))
            points, poses = (values.to(self.device) for values in draw_sequences(seeds, network.frames))
            found.append(joint_errors(network(points), poses).double().cpu().numpy() * 1000)
            progress(start + len(seeds), count)
        return np.concatenate(found)

    @torch.inference_mode()
    def _time(self, network: PoseLifter, size: int) -> PairedTiming:
        points = draw_sequences(range(FIRST_SEED, FIRST_SEED + size), network.frames)[0].to(self.device)
        for _ in range(self.config.tries):
            timing = time_in_turns(
                partial(self.whole, points), partial(network, points), self.config.repetitions, self.device
            )
            if abs(timing.control - 1) <= paired_timing.STEADY:
                break
        return timing

    def save(self, rows: Sequence[PoseRow], out: Path) -> Path:
        """Write the rows, with the errors of all sequences, below the results folder `out`; return the file's path."""
        facts = {
            "model": self.model,
            "sequences": self.config.sequences,
            "frames": self.whole.frames,
            "device": device_name(self.device),
            "formula": FORMULA,
            "code_sha256": code_of(
                PACKAGE / "pruning" / "pose.py", *(Path(str(one.__file__)) for one in (pose_lifter, skeleton))
            ),
            "rows": [_facts(row, rows[0]) for row in rows],
        }
        name = f"n{self.config.sequences}.{slug(device_name(self.device))}.json"
        target = out / slug(self.model) / KIND / name
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, (json.dumps(facts, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
        return target


def _facts(row: PoseRow, whole: PoseRow) -> dict[str, Any]:
    timings = {
        str(size): {
            "speedup": one.ratio,
            "interval": list(one.interval()),
            "control": one.control,
            "measured": one.measured,
            "ms": float(np.median(one.second)) * 1000,
            "whole_ms": float(np.median(one.first)) * 1000,
        }
        for size, one in row.timings.items()
    }
    return {
        "method": row.name,
        NUMBER: metric_entry(float(row.errors.mean()), row.interval),
        f"{NUMBER}_gap": metric_entry(*row.gap(whole)),
        "counts": list(row.counts),
        "gflops": row.gflops,
        "timings": timings,
        "weights": row.weights,
        "short": row.short,
        "errors": row.errors.round(2).tolist(),
    }


def pose_findings(rows: Sequence[PoseRow], root: Path | None = None) -> list[Finding]:
    """Return a finding for each ablation whose two networks are among the rows.

    The verdict is "cannot tell" for networks that were trained on a CPU, whatever the difference.
    """
    by_name = {row.name: row for row in rows}
    return [
        Finding(claim, "poses", _difference(by_name[claim.of], by_name[claim.ablated]))
        for claim in ablations(pose_lifters(root))
        if NUMBER in claim.numbers and claim.of in by_name and claim.ablated in by_name
    ]


def _difference(full: PoseRow, ablated: PoseRow) -> Difference:
    gap, interval = ablated.gap(full)
    verdict: Verdict = "worse" if interval.low > 0 else "better" if interval.high < 0 else "cannot tell"
    if full.short or ablated.short:
        verdict = "cannot tell"
    first, second = float(full.errors.mean()), float(ablated.errors.mean())
    return Difference(NUMBER, first, second, gap, interval.low, interval.high, len(full.errors), verdict)


def markdown(rows: Sequence[PoseRow], findings: Sequence[Finding] = ()) -> str:
    """Return the table of the rows, of which the first one is the full network, its explanation and the findings."""
    whole, sizes = rows[0], sorted({size for row in rows for size in row.timings})
    head = ["network", "frames", "MPJPE mm ↓", "MPJPE - full", "GFLOPs", "x fewer"]
    head += [f"x faster, batch {size}" for size in sizes]
    body = []
    for row in rows:
        gap, interval = row.gap(whole)
        body.append(
            [
                row.name + (" (short)" if row.short else ""),
                ", ".join(map(str, row.counts)),
                f"{row.errors.mean():.1f} [{row.interval.low:.1f}, {row.interval.high:.1f}]",
                "-" if row is whole else f"{gap:+.1f} [{interval.low:+.1f}, {interval.high:+.1f}]",
                f"{row.gflops:.3f}",
                f"{whole.gflops / row.gflops:.2f}",
                *(_speed(row.timings.get(size)) for size in sizes),
            ]
        )
    text = (
        f"{len(whole.errors):,} drawn sequences, full network `{whole.name}`. frames: that enter each pair of blocks. "
        f"Intervals are 95 %, paired by sequence. {FORMULA}.\n\n{table(head, body)}"
    )
    if any(row.short for row in rows):
        text += "\n(short): trained on a CPU for minutes, so that no verdict is drawn.\n"
    for finding in findings:
        claim: Ablation = finding.ablation
        text += f"\n- {claim.claim} `{claim.ablated}` against `{claim.of}`: **{finding.verdict}**"
    return text + ("\n" if findings else "")


def _speed(timing: PairedTiming | None) -> str:
    if timing is None:
        return "-"
    low, high = timing.interval()
    return f"{timing.ratio:.2f} [{low:.2f}, {high:.2f}]" if timing.measured else "none measured"
