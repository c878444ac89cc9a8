"""What was measured of one method on one network, as a JSON file of facts: a row for each keep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tokbench.errors import ResultError
from tokbench.io.atomic import folder_lock, write_atomically
from tokbench.io.json import loads_strict
from tokbench.metric_names import PRUNING_PREFIX
from tokbench.paths import slug

_MADE = ("device", "processor", "kernel", "round_to", "formula", "weights", "data")
_ABOUT = ("model", "method", "title", "training", "dataset", "num_images", "short", "provenance")
_ROW = (
    "title", "network", "right", "tokens", "gflops", "whole_gflops", "counted_gflops", "weights", "pace",
    "training_seconds", "training_images", "training_profile",
)  # fmt: skip


@dataclass
class PruningResult:
    """One method on one network, data set and device.

    about: what was measured, with provenance; two runs whose `about` differs are not mixed. rows: by keep, as text.
    """

    about: dict[str, Any]
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """`<data>[.n2000].<device>[.eager][.r8]`: how it was measured."""
        told = self.about["provenance"]
        limit = f".n{told['data']['limit']}" if told["data"]["limit"] else ""
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
        facts = {"about": self.about, "rows": dict(sorted(self.rows.items(), reverse=True))}
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
    about, rows = (facts.get(key) if isinstance(facts, dict) else None for key in ("about", "rows"))
    whole = isinstance(about, dict) and all(key in about for key in _ABOUT)
    made = about["provenance"] if whole and isinstance(about, dict) else None
    whole = isinstance(made, dict) and all(key in made for key in _MADE)
    if (
        not isinstance(about, dict)
        or not whole
        or not isinstance(rows, dict)
        or not all(isinstance(row, dict) for row in rows.values())
    ):
        raise ResultError(f"{path} does not hold a method's facts; delete it and run again")
    for keep, row in rows.items():
        for number in ("top1", "top5", "agreement", "top1_gap", "top5_gap"):
            entry = row.get(number)
            if not isinstance(entry, dict) or not isinstance(entry.get("value"), int | float):
                raise ResultError(f"{path}: keep {keep} has no {number}; delete it and run again")
        if missing := [name for name in _ROW if name not in row]:
            raise ResultError(f"{path}: keep {keep} has no {', '.join(missing)}; delete it and run again")
    return PruningResult(about, rows)


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
