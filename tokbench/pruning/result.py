"""What was measured of one method on one network, as a JSON file: a row for each keep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tokbench.errors import ResultError
from tokbench.io.atomic import folder_lock, write_atomically
from tokbench.io.json import loads_strict
from tokbench.metric_names import PRUNING_PREFIX
from tokbench.paths import slug
from tokbench.validate import Count, Number, Positive, convert


@dataclass(frozen=True)
class Estimate:
    """A share in [0, 1], or a difference of two shares, with its 95 % interval over `n` images.

    low and high are None for a single image.
    """

    value: Number
    low: Number | None
    high: Number | None
    n: Count


@dataclass(frozen=True)
class Speedup:
    """The speed-up relative to the full network, with its 95 % interval.

    control: the measured speed-up of the full network over itself, ideally 1. measured: whether the speed-up is
    significant. ms, whole_ms: median milliseconds per batch. repetitions: number of timings of each network.
    """

    value: Number
    low: Number
    high: Number
    control: Number
    measured: bool
    whole_ms: Number
    ms: Number
    repetitions: Count


@dataclass(frozen=True)
class BatchTiming:
    """Timing at one batch size.

    speedup: relative to the full network with its faster kernel (best_kernel). speedup_same_kernel: relative to the
    full network with the row's kernel. selector_ms: milliseconds per pass that selecting and merging tokens take.
    peak_mib, whole_peak_mib: peak memory, None where the device does not report it. tries: number of timing runs, which
    older files do not record.
    """

    batch: Positive
    best_kernel: str
    speedup: Speedup
    speedup_same_kernel: Speedup
    selector_ms: Number
    peak_mib: Number | None = None
    whole_peak_mib: Number | None = None
    tries: Count = 1


@dataclass
class PruningRow:
    """The measurements of a method at one keep ratio.

    right: the correctly classified images, as `packed` returns them. tokens: the numbers of tokens that enter and leave
    each block. gflops: GFLOPs per image by the formula; counted_gflops: by PyTorch's counter. weights: hashes by file.
    pace: timings, sorted by batch size. training_seconds, training_images: None where the training is unknown.
    """

    title: str
    network: str
    top1: Estimate
    top5: Estimate
    agreement: Estimate
    top1_gap: Estimate
    top5_gap: Estimate
    right: str
    tokens: list[tuple[Count, Count]]
    gflops: Number
    whole_gflops: Number
    counted_gflops: Number
    training_seconds: int | float | None
    training_images: Count | None
    training_profile: str | None
    weights: dict[str, str]
    pace: list[BatchTiming]


@dataclass(frozen=True)
class _Data:
    limit: Count | None
    side: Positive
    sha256: str


@dataclass(frozen=True)
class _Provenance:
    device: str
    processor: str
    kernel: str
    round_to: Positive
    formula: str
    weights: dict[str, str]
    data: _Data


@dataclass(frozen=True)
class _About:
    """The required fields of `about`. Other fields are allowed and kept."""

    model: str
    method: str
    title: str
    training: str
    dataset: str
    num_images: Count
    short: bool
    provenance: _Provenance


@dataclass(frozen=True)
class _File:
    about: _About
    rows: dict[str, PruningRow]


@dataclass
class PruningResult:
    """One method on one network, data set and device.

    about: what was measured, with provenance; two runs whose `about` differs are not mixed. rows: by keep, as text.
    """

    about: dict[str, Any]
    rows: dict[str, PruningRow] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """`<data>[.n2000].<device>[.eager][.r8]`: how it was measured; `.even2000` marks an even sample."""
        told = self.about["provenance"]
        how = "even" if told["data"].get("sampling") == "even" else "n"
        limit = f".{how}{told['data']['limit']}" if told["data"]["limit"] else ""
        kernel = "" if told["kernel"] == "sdpa" else f".{told['kernel']}"
        multiple = "" if told["round_to"] == 1 else f".r{told['round_to']}"
        return f"{self.about['dataset']}{limit}.{slug(told['device'])}{kernel}{multiple}"

    @property
    def path(self) -> Path:
        """Where it lies below the results folder."""
        return Path(slug(self.about["model"])) / f"{PRUNING_PREFIX}{self.about['method']}.{self.group}.json"

    def save(self, out: Path) -> Path:
        """Written whole. Returns the path."""
        target = out / self.path
        rows = msgspec.to_builtins(dict(sorted(self.rows.items(), reverse=True)))
        facts = {"about": self.about, "rows": rows}
        with folder_lock(out):
            write_atomically(target, (json.dumps(facts, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
        return target

    def resumed(self, out: Path) -> PruningResult:
        """This with the rows that an earlier run of just the same has left, so that they need not be measured again."""
        target = out / self.path
        if not target.exists():
            return self
        earlier = load(target)
        return PruningResult(self.about, earlier.rows) if earlier.about == self.about else self


def load(path: Path) -> PruningResult:
    """Raises ResultError, naming file and fault."""
    try:
        facts = loads_strict(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultError(f"{path} is not readable ({str(error)[:200]}); delete it and run again") from error
    rows = convert(facts, _File, str(path), ResultError, "; delete it and run again").rows
    return PruningResult(facts["about"], rows)


def said_of_labels(told: Mapping[str, Any]) -> str:
    """Which rule gave the labels, and how many of the network's classes occur, from `Labels.facts`."""
    return f"{told['rule']}; {told['present']:,} of {told['classes']:,} classes occur"


def load_all(out: Path) -> list[PruningResult]:
    """All below a results folder, sorted by path."""
    return [load(path) for path in sorted(out.glob(f"*/{PRUNING_PREFIX}*.json")) if path.parent.name != "leaderboard"]


def packed(right: np.ndarray) -> str:
    """Which images were named right, (N,) of 1 and 0, as a bit each, in hexadecimal digits."""
    return np.packbits(right.astype(bool)).tobytes().hex()


def unpacked(text: str, count: int) -> np.ndarray:
    """The inverse, for `count` images."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8), count=count).astype(float)
