"""Result: one JSON file of facts for one adapter, dataset, size, N, protocol and task; per-image values beside it."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tokbench.errors import ResultError
from tokbench.io.atomic import folder_lock, write_atomically
from tokbench.io.json import loads_strict
from tokbench.io.npz import read_npz
from tokbench.metric_names import FOUND, MetricName, kind_of_task
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
_READ = list[tuple[str, list[dict[str, Any]]]]
_REPLICATES = (Replicates.kind, *KINDS)
"""Before the names of those arrays beside a result that are no per-image values (the kinds of replicates and a dot)."""

EFFECT = "effect of the precision"
"""The fact of a number that tells by how much a reduced precision moved it: measured values, other in every result."""

_TOO_LITTLE = "jackknife.codebook_usage"
"""What earlier versions kept of usage, alone or with a stream's name. It has no width where no entry is in one image
alone, so it is left aside: such results have no paired interval of usage until they are measured again."""


class Discardable(Protocol):
    """What lies in the cache until a result is saved (`tokbench.evaluation.checkpoint`)."""

    def discard(self) -> None:
        """Delete it."""


@dataclass(frozen=True)
class MetricValue:
    """One number of a result, as `result["psnr"]` gives it.

    value: NaN where the number has none on these images, as the PSNR of exact images. low, high: the ends of its 95 %
    interval, NaN where it has none. n: the images behind it. title: its column in tables. higher_is_better: None where
    neither direction is. `float(number)` is its value.
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
    """What one run found out. `result["psnr"]` is one number, `to_frame()` has all of them.

    metrics: number -> {value, n} and, where it varies with the images, {low, high}: a 95 % interval. value is None
    where the number has none. per_image: number -> values (n,). replicates: of numbers that are no means over images.
    readings: by kind (words, faces), the images' names and what was read in each. warnings: why numbers may not mean
    what they seem to. skipped: metric -> reason. error: what stopped the adapter, None where nothing did. notes: the
    reasons in full, with the paths of this machine; computed: metrics that gave numbers; lacking: metrics whose weights
    or packages are not on this machine; journal: what is kept of the run until the result is saved. These four are
    never written.
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
    readings: dict[str, list[tuple[str, list[dict[str, Any]]]]] = field(default_factory=dict, repr=False)
    warnings: list[ResultWarning] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict, repr=False)
    computed: frozenset[str] = frozenset()
    lacking: frozenset[str] = frozenset()
    journal: Discardable | None = field(default=None, repr=False)

    def __getitem__(self, number: str) -> MetricValue:
        """One number with its interval. Raises KeyError that lists the numbers there are, and why others are not."""
        if number not in self.metrics:
            known = ", ".join(self.metrics) or "none"
            reasons = "".join(f"; {name} was skipped: {why}" for name, why in (self.skipped | self.notes).items())
            failed = f"; the adapter failed: {self.error}" if self.error else ""
            raise KeyError(f"{self.adapter} has no number '{number}'; it has {known}{reasons}{failed}")
        entry, (_, column) = self.metrics[number], column_of(number)
        value, low, high = (
            math.nan if entry.get(key) is None else float(entry[key]) for key in ("value", "low", "high")
        )
        return MetricValue(number, value, low, high, entry.get("n", self.num_images), column.title, column.more)

    def __contains__(self, number: object) -> bool:
        return number in self.metrics

    def __iter__(self) -> Iterator[str]:
        """The names of the numbers."""
        return iter(self.metrics)

    def to_frame(self) -> pd.DataFrame:
        """All numbers, one row each, by name: value, low, high, n, title, higher_is_better."""
        import pandas as pd

        rows = [vars(self[number]) for number in self.metrics]
        return pd.DataFrame(rows, columns=list(MetricValue.__dataclass_fields__)).set_index("name")

    def per_image_frame(self) -> pd.DataFrame:
        """The values of each image, one row each, by position: `name`, and a column for each number that is a mean over
        images; NaN where an image has none."""
        import pandas as pd

        frame = pd.DataFrame(dict(self.per_image))
        return frame.set_index("index") if "index" in frame else frame

    @property
    def group(self) -> str:
        """`<dataset>[.s512][.n2000][.ref-1a2b3c4d][@protocol]-<task>`: what results must share to stand in one table.

        `.even2000` instead of `.n2000` marks an even sample over class folders instead of the first images. `ref` is
        there where distributions were compared with a statistics file.
        """
        data, protocol = self.provenance["data"], self.provenance["protocol"]["name"]
        side = f"{data['width']}" if data["width"] == data["height"] else f"{data['width']}x{data['height']}"
        size = "" if data["own_size"] is not None and side == str(data["own_size"]) else f".s{side}"
        how = "even" if data.get("sampling") == "even" else "n"
        limit = f".{how}{data['limit']}" if data["limit"] else ""
        reference = f".ref-{told['sha256'][:8]}" if (told := self.provenance.get("reference")) else ""
        return f"{self.dataset}{size}{limit}{reference}{'' if protocol == 'tokbench' else '@' + protocol}-{self.task}"

    @property
    def path(self) -> Path:
        """Where it lies below the results folder."""
        return Path(self.adapter) / f"{self.group}.json"

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        facts = {"schema_version": SCHEMA_VERSION} | {name: getattr(self, name) for name in FIELDS}
        facts |= {"warnings": [warning.to_dict() for warning in self.warnings]} if self.warnings else {}
        return facts | ({"error": self.error} if self.error else {})

    def differs_from(self, earlier: Result) -> list[str]:
        """In what an earlier result of the same key was made otherwise, so that the numbers of the two do not belong
        together: `code_sha256`, `module mymodel`, `package torch 2.13.0 -> 2.14.1`, `seed 0 -> 1`; empty where they do.

        Results of earlier versions do not say which modules and packages they used; these are then not compared.
        """
        before, now = earlier.provenance, self.provenance
        found = [key for key in ("data", "protocol") if before[key]["sha256"] != now[key]["sha256"]]
        found += differences(before["adapter"], now["adapter"])
        return found + [f"{key} {before[key]} -> {now[key]}" for key in RUN if before[key] != now[key]]

    def save(self, out: str | Path) -> tuple[Path, str]:
        """Write it below `out`, joined with the metrics of an earlier run of the same key.

        Returns the path, and why an earlier result was replaced instead of joined: in what it was made otherwise, and
        which of its metrics the file no longer holds. Empty where nothing was replaced.
        """
        target = Path(out) / self.path
        with folder_lock(Path(out)):
            return target, self._save(target)

    def _save(self, target: Path) -> str:
        replaced, earlier = "", None
        if target.exists():
            earlier = load(target)
            if unlike := self.differs_from(earlier):
                lost = [name for name in earlier.metrics if name not in self.metrics]
                gone = f"; the file no longer holds {', '.join(lost)}" if lost else ""
                replaced = f"it was made with other {', '.join(unlike)}{gone}"
        joined = self if earlier is None or replaced else _join(earlier, self)
        beside = target.with_suffix(".npz")
        arrays = joined.per_image | {f"{made.kind}.{name}": made.as_array() for name, made in joined.replicates.items()}
        arrays |= {_READINGS + kind: _encoded(own) for kind, own in joined.readings.items()}
        if arrays:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
            write_atomically(beside, buffer.getvalue())
        else:
            beside.unlink(missing_ok=True)  # an earlier one belongs to other data
        text = json.dumps(joined.to_dict(), indent=1, sort_keys=True, allow_nan=False) + "\n"
        write_atomically(target, text.encode())
        return replaced


def _join(earlier: Result, later: Result) -> Result:
    metrics = earlier.metrics | later.metrics
    told = later.provenance | {"metrics": earlier.provenance["metrics"] | later.provenance["metrics"]}
    both = earlier.skipped | later.skipped
    skipped = {name: why for name, why in both.items() if name not in metrics and name not in later.computed}
    per_image = {**earlier.per_image, **later.per_image}
    references = (
        told["data"].get("available", 0) - len(later.bad_images) if kind_of_task(later.task) == "generate" else 0
    )
    few = result_warning.few_images(later.num_images, metrics, references or None)
    return Result(
        later.adapter, later.dataset, later.task, later.num_images, metrics, skipped, later.bad_images, told,
        per_image=per_image, replicates=earlier.replicates | later.replicates,
        readings=earlier.readings | later.readings,
        warnings=result_warning.joined(earlier.warnings, later.warnings, few),
    )  # fmt: skip


def settings(result: Result, number: str) -> dict[str, str]:
    """How a number was made (network, layer, weights, device), without what its measurement found out by itself: two
    numbers are of one kind where these agree."""
    made = result.provenance.get("metrics", {}).get(number, {})
    return {key: value for key, value in made.items() if not key.startswith((FOUND, EFFECT))}


def failure(adapter: str, dataset: str, task: str, error: str, bad: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    """The JSON object of an adapter that gave no result."""
    bad_images = [{"name": name, "reason": reason} for name, reason in bad]
    made = Result(adapter, dataset, task, 0, {}, {}, bad_images, {}, error=error)
    return made.to_dict()


def load(path: Path) -> Result:
    """Read a result and the per-image values beside it. Raises ResultError, naming file and fault."""
    try:
        facts = loads_strict(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ValueError: JSON, UTF-8, integers of thousands of digits
        raise ResultError(f"{path} is not a readable result ({str(error)[:200]}); delete it and run again") from error
    facts, warnings = check(facts, path)
    beside = path.with_suffix(".npz")
    arrays: dict[str, np.ndarray] = {}
    if beside.exists():
        try:
            arrays = read_npz(beside)
        except ValueError as error:
            raise ResultError(f"{beside} is not readable ({error}); delete it and run again") from error
    replicates: dict[str, Spread] = {}
    for name in [name for name in arrays if "." in name and name.partition(".")[0] in _REPLICATES]:
        kind, _, number = name.partition(".")
        if f"{name}.".startswith(f"{_TOO_LITTLE}."):
            del arrays[name]
            continue
        if number in replicates:
            raise ResultError(f"{beside}: '{number}' has replicates of two kinds; delete it and run again")
        replicates[number] = _replicates(kind, name, arrays.pop(name), beside)
    readings = {
        name.removeprefix(_READINGS): _decoded(arrays.pop(name), name, beside)
        for name in [name for name in arrays if name.startswith(_READINGS)]
    }
    _check_per_image(arrays, beside)
    made = Result(
        **{name: facts[name] for name in FIELDS},
        error=facts.get("error"),
        warnings=warnings,
        per_image=arrays,
        replicates=replicates,
        readings=readings,
    )
    _check_infinity(made, beside)
    return made


def _encoded(readings: list[tuple[str, list[dict[str, Any]]]]) -> np.ndarray:
    """JSON as bytes, since an array of texts gives each the room of the longest."""
    return np.frombuffer(json.dumps(readings, ensure_ascii=False).encode(), dtype=np.uint8)


def _decoded(array: np.ndarray, name: str, path: Path) -> list[tuple[str, list[dict[str, Any]]]]:
    try:
        told = loads_strict(array.tobytes()) if array.dtype == np.uint8 else None
    except ValueError:
        told = None
    return convert(told, _READ, f"{path}: '{name}'", ResultError, "; delete it and run again")


def _check_per_image(arrays: dict[str, np.ndarray], path: Path) -> None:
    """One axis of images: `index` rises, all other arrays are as long. Without names, positions stand for them."""
    if not arrays:
        return
    index = arrays.get("index")
    whole = index is not None and index.ndim == 1 and index.dtype.kind in "iu"
    if index is None or not whole or not (index[1:] > index[:-1]).all() or (index < 0).any():
        raise ResultError(f"{path}: 'index' must hold rising positions of images; delete it and run again")
    arrays.setdefault("name", index.astype(str))
    for name, values in arrays.items():
        if values.shape != index.shape:
            raise ResultError(f"{path}: '{name}' has the shape {values.shape} for {len(index)} images")
        if name == "name" and values.dtype.kind != "U":
            raise ResultError(f"{path}: 'name' must hold text")
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
        raise ResultError(f"{path}: '{name}' must hold numbers, it holds {values.dtype}")
    if (np.abs(values[~np.isnan(values)]) > LARGEST).any():
        raise ResultError(f"{path}: '{name}' holds infinite values")


def _check_infinity(result: Result, path: Path) -> None:
    """A number extrapolated from replicates needs the number itself, and both columns of them."""
    for number, entry in result.metrics.items():
        base = MetricName.parse(number).finite
        if base == number or entry["value"] is None or base not in result.replicates:
            continue
        made = result.replicates[base]
        whole = isinstance(made, Replicates) and made.quarters is not None
        if result.metrics.get(base, {}).get("value") is None or not whole:
            raise ResultError(f"{path}: '{made.kind}.{base}' and metric '{base}' do not give '{number}'")
