"""The measurements of one method on one network, stored as a JSON file with one row per keep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import GenericAlias
from typing import Any

import msgspec
import numpy as np

from tokbench.errors import ResultError
from tokbench.io.atomic import folder_lock, write_atomically
from tokbench.io.json import loads_strict
from tokbench.metric_names import PRUNING_PREFIX
from tokbench.paths import slug
from tokbench.pruning.kind_names import CLASSIFIER, KINDS, row_class
from tokbench.validate import Count, Number, Positive, convert

WHOLE = "whole"
"""Key of a row without a keep ratio, such as that of a smaller network."""

STEADY = 0.03
"""Maximum deviation of a control timing from 1."""


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


@dataclass(frozen=True, kw_only=True)
class BatchTiming:
    """Timing at one batch size.

    speedup: over the full network. peak_mib, whole_peak_mib: peak memory of a pass, None where the device does not
    report it. tries: number of timing runs, which older files do not record.
    """

    batch: Positive
    speedup: Speedup
    peak_mib: Number | None = None
    whole_peak_mib: Number | None = None
    tries: Count = 1

    @property
    def speedups(self) -> tuple[Speedup, ...]:
        """All speed-ups that were measured, whose controls decide whether the timing is repeated."""
        return (self.speedup,)


@dataclass(frozen=True, kw_only=True)
class SelectorTiming(BatchTiming):
    """Timing of a network in which the choice of tokens is timed separately.

    selector_ms: milliseconds of a pass that choosing, merging or making tokens takes.
    """

    selector_ms: Number


class TimedRow:
    """A row of a result file, with its timings. The class of the rows depends on the kind of the model.

    weights: hashes by file of a network that was trained for the row. pace: timings, sorted by batch size.
    """

    weights: dict[str, str]
    pace: Any

    @property
    def timings(self) -> list[Any]:
        """All timings."""
        return list(self.pace)

    def timing(self, batch: int) -> Any:
        """Return the timing at a batch size, None if there is none."""
        return next((one for one in self.pace if one.batch == batch), None)

    def add_timing(self, timing: Any) -> None:
        """Add a timing; it replaces the one at the same batch size."""
        others = [one for one in self.pace if one.batch != timing.batch]
        self.pace = sorted([*others, timing], key=lambda one: one.batch)


@dataclass(kw_only=True)
class NetworkRow(TimedRow):
    """The part of a row that all kinds share whose rows are networks and are timed by batch size.

    network: the network that was run. gflops, whole_gflops: of one input, of it and of the full network.
    training_seconds, training_images, training_profile: of a network that was trained for the row, else 0, 0 and None;
    seconds and images are None where the training is unknown.
    """

    title: str
    network: str
    gflops: Number
    whole_gflops: Number
    training_seconds: int | float | None
    training_images: Count | None
    training_profile: str | None
    weights: dict[str, str]
    pace: Any


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
    rows: dict[str, dict[str, Any]]


@dataclass
class PruningResult:
    """One method on one network, data set and device.

    about: what was measured, with provenance; two runs whose `about` differs are not mixed. rows: by keep, as text;
    their class depends on the kind of the model (`tokbench.pruning.kinds`).
    """

    about: dict[str, Any]
    rows: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The kind of the model, a key of `kind_names.KINDS`; results of classifiers do not state it."""
        return str(self.about.get("kind", CLASSIFIER))

    @property
    def group(self) -> str:
        """The conditions of the measurement, as in file names: `<dataset>[.n2000].<device>[.eager][.r8]`.

        `.even2000` instead of `.n2000` marks an even sample over class folders instead of the first images.
        """
        provenance = self.about["provenance"]
        how = "even" if provenance["data"].get("sampling") == "even" else "n"
        limit = f".{how}{provenance['data']['limit']}" if provenance["data"]["limit"] else ""
        kernel = "" if provenance["kernel"] == "sdpa" else f".{provenance['kernel']}"
        multiple = "" if provenance["round_to"] == 1 else f".r{provenance['round_to']}"
        return f"{self.about['dataset']}{limit}.{slug(provenance['device'])}{kernel}{multiple}"

    @property
    def path(self) -> Path:
        """The path of the file, relative to the results folder."""
        return Path(slug(self.about["model"])) / f"{PRUNING_PREFIX}{self.about['method']}.{self.group}.json"

    def save(self, out: Path) -> Path:
        """Write the file atomically below the results folder `out`; return its path."""
        target = out / self.path
        rows = msgspec.to_builtins(dict(sorted(self.rows.items(), reverse=True)))
        facts = {"about": self.about, "rows": rows}
        with folder_lock(out):
            write_atomically(target, (json.dumps(facts, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
        return target

    def resumed(self, out: Path) -> PruningResult:
        """Return this result with the rows that an earlier run with equal `about` saved in `out`."""
        target = out / self.path
        if not target.exists():
            return self
        earlier = load(target)
        return PruningResult(self.about, earlier.rows) if earlier.about == self.about else self


def load(path: Path) -> PruningResult:
    """Load a file. Raises ResultError, with the file and the fault, if it is not valid."""
    try:
        facts = loads_strict(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultError(f"{path} is not readable ({str(error)[:200]}); delete it and run again") from error
    remedy = "; delete it and run again"
    convert(facts, _File, str(path), ResultError, remedy)
    result = PruningResult(facts["about"])
    if result.kind not in KINDS:
        raise ResultError(f"{path}: unknown kind {result.kind!r} of model, not one of {', '.join(KINDS)}{remedy}")
    file: Any = msgspec.defstruct("File", [("rows", GenericAlias(dict, (str, row_class(result.kind))))])
    result.rows = convert({"rows": facts["rows"]}, file, str(path), ResultError, remedy).rows
    return result


def labels_text(labels: Mapping[str, Any]) -> str:
    """Return the rule that gave the labels and the number of classes that occur. labels: as `Labels.facts` returns."""
    return f"{labels['rule']}; {labels['present']:,} of {labels['classes']:,} classes occur"


def load_all(out: Path, kind: str = CLASSIFIER) -> list[PruningResult]:
    """Load all pruning results of models of one kind in a results folder, sorted by path."""
    paths = [path for path in sorted(out.glob(f"*/{PRUNING_PREFIX}*.json")) if path.parent.name != "leaderboard"]
    return [one for one in map(load, paths) if one.kind == kind]


def row_key(keep: float | None) -> str:
    """Return the key of a row in its file."""
    return WHOLE if keep is None else f"{keep:g}"


def keep_of_row(key: str) -> float | None:
    """Return the keep of a row from its key: the inverse of `row_key`."""
    return None if key == WHOLE else float(key)


def packed(right: np.ndarray) -> str:
    """Return the correctness of N images, (N,) of 1 and 0, as hexadecimal digits with one bit per image."""
    return np.packbits(right.astype(bool)).tobytes().hex()


def unpacked(text: str, count: int) -> np.ndarray:
    """Return the correctness of `count` images, (count,) of 1 and 0: the inverse of `packed`."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8), count=count).astype(float)
