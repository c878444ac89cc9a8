"""Result: one JSON file of facts for one adapter, dataset, size, N, protocol and task; per-image values beside it."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tokbench.errors import ResultError
from tokbench.files import write_atomically
from tokbench.halves import Replicates

_RUN = ("seed", "precision", "device")
"""What else of a run is the same for all numbers of one result."""

_REPLICATES = "replicates."
"""Before the names of those arrays beside a result that are no per-image values."""

_FIELDS: dict[str, type] = {
    "adapter": str,
    "dataset": str,
    "task": str,
    "num_images": int,
    "metrics": dict,
    "skipped": dict,
    "bad_images": list,
    "provenance": dict,
}


@dataclass
class Result:
    """What one run found out.

    metrics: number -> {value, n} and, where it varies with the images, {low, high}: a 95 % interval. value is None
    where the number has none. per_image: number -> values (n,). replicates: of numbers that are no means over images.
    skipped: metric -> reason. error: what stopped the adapter, None where nothing did. notes: the
    reasons in full, with the paths of this machine; computed: metrics that gave numbers. These two are never written.
    """

    adapter: str
    dataset: str
    task: str
    num_images: int
    metrics: dict[str, dict[str, Any]]
    skipped: dict[str, str]
    bad_images: list[dict[str, str]]
    provenance: dict[str, Any]
    error: str | None = None
    per_image: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    replicates: dict[str, Replicates] = field(default_factory=dict, repr=False)
    notes: dict[str, str] = field(default_factory=dict, repr=False)
    computed: frozenset[str] = frozenset()

    @property
    def group(self) -> str:
        """`<dataset>[.s512][.n2000][.ref-1a2b3c4d][@protocol]-<task>`: what results must share to stand in one table.

        `ref` is there where distributions were compared with a statistics file.
        """
        data, protocol = self.provenance["data"], self.provenance["protocol"]["name"]
        side = f"{data['width']}" if data["width"] == data["height"] else f"{data['width']}x{data['height']}"
        size = "" if data["own_size"] is not None and side == str(data["own_size"]) else f".s{side}"
        limit = f".n{data['limit']}" if data["limit"] else ""
        reference = f".ref-{told['sha256'][:8]}" if (told := self.provenance.get("reference")) else ""
        return f"{self.dataset}{size}{limit}{reference}{'' if protocol == 'tokbench' else '@' + protocol}-{self.task}"

    @property
    def path(self) -> Path:
        """Where it lies below the results folder."""
        return Path(self.adapter) / f"{self.group}.json"

    def facts(self) -> dict[str, Any]:
        """The JSON object."""
        facts = {name: getattr(self, name) for name in _FIELDS}
        return facts | ({"error": self.error} if self.error else {})

    @property
    def identity(self) -> tuple[Any, ...]:
        """What two runs under one key must agree on for their metrics to belong together."""
        told = self.provenance
        adapter = {key: value for key, value in told["adapter"].items() if key not in ("source", "fitted")}
        data, protocol = told["data"]["sha256"], told["protocol"]["sha256"]
        return data, protocol, json.dumps(adapter, sort_keys=True), *(told[key] for key in _RUN)

    def save(self, out: Path) -> tuple[Path, bool]:
        """Write it below `out`, joined with the metrics of an earlier run of the same key.

        Returns the path, and whether an earlier result was replaced since its data, weights, seed or protocol differ.
        """
        target = out / self.path
        replaced, earlier = False, None
        if target.exists():
            earlier = load(target)
            replaced = earlier.identity != self.identity
        joined = self if earlier is None or replaced else _join(earlier, self)
        beside = target.with_suffix(".npz")
        arrays = joined.per_image | {_REPLICATES + name: made.as_array() for name, made in joined.replicates.items()}
        if arrays:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
            write_atomically(beside, buffer.getvalue())
        else:
            beside.unlink(missing_ok=True)  # an earlier one belongs to other data
        text = json.dumps(joined.facts(), indent=1, sort_keys=True, allow_nan=False) + "\n"
        write_atomically(target, text.encode())
        return target, replaced


def _join(earlier: Result, later: Result) -> Result:
    metrics = earlier.metrics | later.metrics
    told = later.provenance | {"metrics": earlier.provenance["metrics"] | later.provenance["metrics"]}
    both = earlier.skipped | later.skipped
    skipped = {name: why for name, why in both.items() if name not in metrics and name not in later.computed}
    per_image = {**earlier.per_image, **later.per_image}
    return Result(
        later.adapter, later.dataset, later.task, later.num_images, metrics, skipped, later.bad_images, told,
        per_image=per_image, replicates=earlier.replicates | later.replicates,
    )  # fmt: skip


def failure(adapter: str, dataset: str, task: str, error: str, bad: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    """The JSON object of an adapter that gave no result."""
    bad_images = [{"name": name, "reason": reason} for name, reason in bad]
    made = Result(adapter, dataset, task, 0, {}, {}, bad_images, {}, error=error)
    return made.facts()


def load(path: Path) -> Result:
    """Read a result and the per-image values beside it. Raises ResultError, naming file and fault."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ResultError(f"{path} is not a readable result ({error}); delete it and run again") from error
    check(facts, path)
    arrays: dict[str, np.ndarray] = {}
    beside = path.with_suffix(".npz")
    if beside.exists():
        try:
            with np.load(beside, allow_pickle=False) as held:
                arrays = dict(held)
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise ResultError(f"{beside} is not readable ({error}); delete it and run again") from error
    replicates = {
        name.removeprefix(_REPLICATES): Replicates.from_array(columns)
        for name, columns in arrays.items()
        if name.startswith(_REPLICATES)
    }
    per_image = {name: values for name, values in arrays.items() if not name.startswith(_REPLICATES)}
    return Result(
        **{name: facts[name] for name in _FIELDS}, error=facts.get("error"), per_image=per_image, replicates=replicates
    )


def check(facts: Any, path: Path) -> None:
    """Raises ResultError where a JSON object is not a result: a field missing or of the wrong type."""
    if not isinstance(facts, dict):
        raise ResultError(f"{path} does not hold one JSON object")
    for name, kind in _FIELDS.items():
        if not isinstance(facts.get(name), kind):
            raise ResultError(f"{path}: '{name}' must be a {kind.__name__}, it is {facts.get(name)!r:.80}")
    for number, entry in facts["metrics"].items():
        value = entry.get("value", "") if isinstance(entry, dict) else ""
        if not (value is None or (isinstance(value, int | float) and not isinstance(value, bool))):
            raise ResultError(f"{path}: metric '{number}' must hold a number or null as its value")
    told = facts["provenance"]
    if absent := [key for key in (*_RUN, "metrics") if key not in told]:
        raise ResultError(f"{path}: provenance must hold {', '.join(absent)}")
    for part, keys in {
        "data": ("sha256", "width", "height", "own_size", "limit"),
        "protocol": ("name", "sha256"),
        "adapter": ("kind",),
    }.items():
        if not isinstance(told.get(part), dict) or not all(key in told[part] for key in keys):
            raise ResultError(f"{path}: provenance.{part} must hold {', '.join(keys)}")
