"""Result: the metrics of one adapter on one dataset, size, N, protocol and task.

A result is stored as a JSON file. Its per-image values are in an .npz file beside it.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tokbench.errors import ResultError
from tokbench.io.atomic import folder_lock, write_atomically
from tokbench.io.json import loads_strict
from tokbench.io.npz import read_npz
from tokbench.metric_names import FOUND, ITEMS, MetricName, kind_of_task, table_of_task
from tokbench.protocol.degradation import Degradation
from tokbench.results import warning as result_warning
from tokbench.results.adapter_facts import differences
from tokbench.results.columns import column_of
from tokbench.results.schema import FIELDS, RUN, SCHEMA_VERSION, check
from tokbench.results.warning import ResultWarning
from tokbench.stats.split_half import Replicates
from tokbench.stats.spread import KINDS, Spread
from tokbench.validate import LARGEST, convert

if TYPE_CHECKING:
    import pandas as pd


_READINGS = "readings."
"""Prefix of the names of arrays that contain readings."""

_Readings = list[tuple[str, list[dict[str, Any]]]]

_REPLICATES = (Replicates.kind, *KINDS)
"""Kinds of replicates. The name of an array of replicates is its kind, a dot and the name of the metric."""

EFFECT = "effect of the precision"
"""Key, in the settings of a metric, of the measured effect of a reduced precision, which differs in every result."""

_TOO_LITTLE = "jackknife.codebook_usage"
"""Replicates of usage that earlier versions stored, possibly followed by a stream's name. Their variance is zero if
every entry occurs in several images, so they are ignored: such results have no paired interval of usage until they are
measured again."""


class Discardable(Protocol):
    """Cached data that is kept until a result is saved (`tokbench.evaluation.checkpoint`)."""

    def discard(self) -> None:
        """Delete the data."""


@dataclass(frozen=True)
class MetricValue:
    """The value of one metric, as returned by `result["psnr"]`. `float(metric)` is its value.

    value: NaN if the metric is undefined on these images, such as the PSNR of exact images. low, high: the ends of the
    95 % interval, NaN without an interval. n: number of images it was computed from. title: title of its column in
    tables. higher_is_better: None if neither direction is better.
    """

    name: str
    value: float
    low: float
    high: float
    n: int
    title: str
    higher_is_better: bool | None

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        interval = "" if math.isnan(self.low) else f" [{self.low:.6g}, {self.high:.6g}]"
        return f"{self.title} {self.value:.6g}{interval} (n = {self.n:,})"


@dataclass
class Result:
    """The metrics of one run. `result["psnr"]` returns one of them, `to_frame()` returns all.

    metrics: {value, n} by name, and {low, high}, a 95 % interval, if the value varies with the images. The value is
    None if the metric is undefined. per_image: values (n,) by name. replicates: replicates by name, of metrics that are
    not means over images. readings: by kind (words, faces), the name of each image and what was recognised in it.
    warnings: reasons to doubt the values. skipped: reason by metric. error: why the adapter failed, None if it did not.

    The other fields are never written. notes: the full reasons, with paths of this machine. computed: metrics that gave
    values. lacking: metrics whose weights or packages are missing on this machine. checkpoint: the cached progress of
    the run, which is kept until the result is saved.
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
    replicates: dict[str, Spread] = field(default_factory=dict, repr=False)
    readings: dict[str, _Readings] = field(default_factory=dict, repr=False)
    warnings: list[ResultWarning] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict, repr=False)
    computed: frozenset[str] = frozenset()
    lacking: frozenset[str] = frozenset()
    checkpoint: Discardable | None = field(default=None, repr=False)

    def __getitem__(self, name: str) -> MetricValue:
        """Return one metric with its interval.

        Raises KeyError that lists the metrics of the result, and the reasons why others are missing.
        """
        if name not in self.metrics:
            known = ", ".join(self.metrics) or "none"
            reasons = "".join(f"; {metric} was skipped: {why}" for metric, why in (self.skipped | self.notes).items())
            failed = f"; the adapter failed: {self.error}" if self.error else ""
            raise KeyError(f"the result of {self.adapter} has no number '{name}'; it has {known}{reasons}{failed}")
        entry, (_, column) = self.metrics[name], column_of(name)
        value, low, high = (
            math.nan if entry.get(key) is None else float(entry[key]) for key in ("value", "low", "high")
        )
        return MetricValue(name, value, low, high, entry.get("n", self.num_images), column.title, column.more)

    def __contains__(self, name: object) -> bool:
        return name in self.metrics

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the metrics."""
        return iter(self.metrics)

    def to_frame(self) -> pd.DataFrame:
        """Return all metrics, one row each, indexed by name: value, low, high, n, title, higher_is_better."""
        import pandas as pd

        rows = [vars(self[name]) for name in self.metrics]
        return pd.DataFrame(rows, columns=list(MetricValue.__dataclass_fields__)).set_index("name")

    def per_image_frame(self) -> pd.DataFrame:
        """Return the values of all images, one row each, indexed by position.

        The columns are `name` and the metrics that are means over images. A value is NaN if it is undefined.
        """
        import pandas as pd

        frame = pd.DataFrame(dict(self.per_image))
        return frame.set_index("index") if "index" in frame else frame

    @property
    def row(self) -> str:
        """The name of its row in tables: the adapter, and the variant of its decoder, where the task has variants."""
        variant = table_of_task(self.task)[1]
        return f"{self.adapter} ({variant})" if variant else self.adapter

    @property
    def table(self) -> str:
        """The name of its table: `group` with the task of the table, in which the variants of a decoder are rows."""
        return f"{self.group.removesuffix(self.task)}{table_of_task(self.task)[0]}"

    @property
    def group(self) -> str:
        """The key of a result within an adapter:
        `<dataset>[.s512][.n2000][.ref-1a2b3c4d][.rain-0.5][.restored-x][@protocol]-<task>`.

        Data other than images have their `extent` instead of the size, such as `.t16` for clips of 16 frames.

        It contains `ref` if distributions were compared with a statistics file. `.even2000` instead of `.n2000` marks
        an even sample over class folders instead of the first images.
        """
        data, protocol = self.provenance["data"], self.provenance["protocol"]["name"]
        side = f"{data['width']}" if data["width"] == data["height"] else f"{data['width']}x{data['height']}"
        size = "" if data["own_size"] is not None and side == str(data["own_size"]) else f".s{side}"
        size = f".{data['extent']}" if data.get("extent") else size
        how = "even" if data.get("sampling") == "even" else "n"
        limit = f".{how}{data['limit']}" if data["limit"] else ""
        statistics = self.provenance.get("reference")
        reference = f".ref-{statistics['sha256'][:8]}" if statistics else ""
        rules = "" if protocol == "tokbench" else f"@{protocol}"
        return f"{self.dataset}{size}{limit}{reference}{self._degraded}{rules}-{self.task}"

    @property
    def _degraded(self) -> str:
        damage, restorer = self.provenance["protocol"].get("degrade"), self.provenance.get("restore")
        restored = f".restored-{restorer['name']}" if restorer else ""
        return f".{Degradation.parse(damage).slug}{restored}" if damage else restored

    @property
    def path(self) -> Path:
        """The path of the JSON file, relative to the results folder."""
        return Path(self.adapter) / f"{self.group}.json"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the result file."""
        facts = {"schema_version": SCHEMA_VERSION} | {name: getattr(self, name) for name in FIELDS}
        facts |= {"warnings": [warning.to_dict() for warning in self.warnings]} if self.warnings else {}
        return facts | ({"error": self.error} if self.error else {})

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays from which two results are compared: per-image values and replicates, by stored name."""
        stored = {f"{spread.kind}.{name}": spread.as_array() for name, spread in self.replicates.items()}
        return {**self.per_image, **stored}

    def differs_from(self, earlier: Result) -> list[str]:
        """Return the differences from an earlier result of the same key that make their metrics incomparable.

        Examples: `code_sha256`, `module mymodel`, `package torch 2.13.0 -> 2.14.1`, `seed 0 -> 1`. Results of earlier
        versions do not record modules and packages, which are then not compared.
        """
        before, now = earlier.provenance, self.provenance
        changes = [key for key in ("data", "protocol") if before[key]["sha256"] != now[key]["sha256"]]
        changes += differences(before["adapter"], now["adapter"])
        changes += [f"restorer's {text}" for text in differences(before.get("restore", {}), now.get("restore", {}))]
        return changes + [f"{key} {before[key]} -> {now[key]}" for key in RUN if before[key] != now[key]]

    def save(self, out: str | Path) -> tuple[Path, str]:
        """Write the result into the results folder `out`, merged with the metrics of an earlier result of the same key.

        Returns the path, and the reason why an earlier result was replaced instead: the differences, and the metrics
        that the file no longer contains. The reason is empty if nothing was replaced.
        """
        target = Path(out) / self.path
        with folder_lock(Path(out)):
            return target, self._save(target)

    def _save(self, target: Path) -> str:
        replaced, earlier = "", None
        if target.exists():
            earlier = load(target)
            if changes := self.differs_from(earlier):
                lost = [name for name in earlier.metrics if name not in self.metrics]
                gone = f"; the file no longer contains {', '.join(lost)}" if lost else ""
                replaced = f"it was computed with other {', '.join(changes)}{gone}"
        merged = self if earlier is None or replaced else _merge(earlier, self)
        npz = target.with_suffix(".npz")
        arrays = merged.arrays() | {_READINGS + kind: _encode(readings) for kind, readings in merged.readings.items()}
        if arrays:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
            write_atomically(npz, buffer.getvalue())
        else:
            npz.unlink(missing_ok=True)  # it belongs to the earlier result
        text = json.dumps(merged.to_dict(), indent=1, sort_keys=True, allow_nan=False) + "\n"
        write_atomically(target, text.encode())
        return replaced


def _merge(earlier: Result, later: Result) -> Result:
    metrics = earlier.metrics | later.metrics
    provenance = later.provenance | {"metrics": earlier.provenance["metrics"] | later.provenance["metrics"]}
    both = earlier.skipped | later.skipped
    skipped = {name: why for name, why in both.items() if name not in metrics and name not in later.computed}
    per_image = {**earlier.per_image, **later.per_image}
    references = 0
    if kind_of_task(later.task) == "generate":
        references = provenance["data"].get("available", 0) - len(later.bad_images)
    noun = ITEMS[provenance["data"].get("modality", "image")].noun
    few = result_warning.few_images(later.num_images, metrics, references or None, noun)
    return Result(
        later.adapter, later.dataset, later.task, later.num_images, metrics, skipped, later.bad_images, provenance,
        per_image=per_image, replicates=earlier.replicates | later.replicates,
        readings=earlier.readings | later.readings,
        warnings=result_warning.merged(earlier.warnings, later.warnings, few),
    )  # fmt: skip


def settings(result: Result, name: str) -> dict[str, str]:
    """Return the settings of a metric (network, layer, weights, device), without values found by the measurement.

    Two values of a metric are comparable if their settings are equal.
    """
    recorded = result.provenance.get("metrics", {}).get(name, {})
    return {key: value for key, value in recorded.items() if not key.startswith((FOUND, EFFECT))}


def side_of(data: Mapping[str, Any]) -> int | None:
    """Return the `--size` that reads the data of a result again: the side of square images in pixels, or the resolution
    that the result states; None for other images."""
    square = data["width"] if data["width"] == data["height"] else None
    side: int | None = data.get("side", square)
    return side


def failure(adapter: str, dataset: str, task: str, error: str, bad: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    """Return the JSON object of an adapter that failed. bad: name and reason of each unreadable image."""
    bad_images = [{"name": name, "reason": reason} for name, reason in bad]
    return Result(adapter, dataset, task, 0, {}, {}, bad_images, {}, error=error).to_dict()


def load(path: Path) -> Result:
    """Read a result and its per-image values. Raises ResultError that names the file and the fault."""
    try:
        facts = loads_strict(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ValueError: JSON, UTF-8, integers of thousands of digits
        raise ResultError(f"{path} is not a readable result ({str(error)[:200]}); delete it and run again") from error
    facts, warnings = check(facts, path)
    npz = path.with_suffix(".npz")
    arrays: dict[str, np.ndarray] = {}
    if npz.exists():
        try:
            arrays = read_npz(npz)
        except ValueError as error:
            raise ResultError(f"{npz} is not readable ({error}); delete it and run again") from error
    replicates: dict[str, Spread] = {}
    for array in [array for array in arrays if "." in array and array.partition(".")[0] in _REPLICATES]:
        kind, _, name = array.partition(".")
        if f"{array}.".startswith(f"{_TOO_LITTLE}."):
            del arrays[array]
            continue
        if name in replicates:
            raise ResultError(f"{npz}: '{name}' has replicates of two kinds; delete it and run again")
        replicates[name] = _replicates(kind, array, arrays.pop(array), npz)
    readings = {
        array.removeprefix(_READINGS): _decode(arrays.pop(array), array, npz)
        for array in [array for array in arrays if array.startswith(_READINGS)]
    }
    _check_per_image(arrays, npz)
    result = Result(
        **{name: facts[name] for name in FIELDS},
        error=facts.get("error"),
        warnings=warnings,
        per_image=arrays,
        replicates=replicates,
        readings=readings,
    )
    _check_infinity(result, npz)
    return result


def _encode(readings: _Readings) -> np.ndarray:
    """Return the JSON text as bytes, because an array of texts would pad each to the length of the longest."""
    return np.frombuffer(json.dumps(readings, ensure_ascii=False).encode(), dtype=np.uint8)


def _decode(array: np.ndarray, name: str, path: Path) -> _Readings:
    if array.dtype != np.uint8:
        raise ResultError(f"{path}: '{name}' must be bytes, but it is {array.dtype}; delete it and run again")
    text = array.tobytes()
    try:
        content = loads_strict(text)
        if b"\\u" in text:
            _encode(content)  # this fails for an escaped lone surrogate, with which the result could not be saved
    except ValueError as error:
        raise ResultError(f"{path}: '{name}' is not readable ({str(error)[:120]}); delete it and run again") from error
    return convert(content, _Readings, f"{path}: '{name}'", ResultError, "; delete it and run again")


def _check_per_image(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Check that `index` is increasing and that all other arrays have its length. Missing names become positions."""
    if not arrays:
        return
    index = arrays.get("index")
    valid = index is not None and index.ndim == 1 and index.dtype.kind in "iu"
    if index is None or not valid or not (index[1:] > index[:-1]).all() or (index < 0).any():
        raise ResultError(f"{path}: 'index' must contain increasing positions of images; delete it and run again")
    arrays.setdefault("name", index.astype(str))
    for name, values in arrays.items():
        if values.shape != index.shape:
            raise ResultError(f"{path}: '{name}' has the shape {values.shape} for {len(index)} images")
        if name == "name" and values.dtype.kind != "U":
            raise ResultError(f"{path}: 'name' must contain text")
        if name not in ("index", "name"):
            _check_values(name, values, path)


def _replicates(kind: str, name: str, values: np.ndarray, path: Path) -> Spread:
    _check_values(name, values, path)
    try:
        return Replicates.from_array(values) if kind == Replicates.kind else KINDS[kind].from_array(values)
    except ValueError as shape:
        raise ResultError(f"{path}: '{name}' has the shape {values.shape}, not {shape}") from shape


def _check_values(name: str, values: np.ndarray, path: Path) -> None:
    if values.dtype.kind not in "fiu":
        raise ResultError(f"{path}: '{name}' must contain numbers, but it contains {values.dtype}")
    if (np.abs(values[~np.isnan(values)]) > LARGEST).any():
        raise ResultError(f"{path}: '{name}' contains infinite values")


def _check_infinity(result: Result, path: Path) -> None:
    """Check that an extrapolated metric has the metric itself and both columns of its replicates."""
    for name, entry in result.metrics.items():
        base = MetricName.parse(name).finite
        if base == name or entry["value"] is None or base not in result.replicates:
            continue
        spread = result.replicates[base]
        complete = isinstance(spread, Replicates) and spread.quarters is not None
        if result.metrics.get(base, {}).get("value") is None or not complete:
            raise ResultError(
                f"{path}: '{name}' cannot be extrapolated from metric '{base}' and '{spread.kind}.{base}'"
            )
