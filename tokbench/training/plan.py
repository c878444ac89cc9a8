"""The plan of a `tokbench train` command: which adapters are trained, in which order, and how long it takes."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from tokbench.errors import AdapterError, TokbenchError, UsageError
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.registry import open_variant, read_variant
from tokbench.tokenizers.training_record import read_record
from tokbench.training.loop import TrainConfig
from tokbench.training.states import base_hashes, content_of
from tokbench.training.zoo import (
    TrainOptions,
    dependencies,
    recipe_of,
    trainable_adapters,
    untrained,
    weights_file,
    weights_from,
)
from tokbench.weights.shards import shard_paths


@dataclass(frozen=True)
class PlannedTraining:
    """A training of a plan.

    images: number of images that it will see; None if its budget is a time. seconds: estimated CPU time; None if there
    is no record of an earlier training on the same kind of device.
    """

    name: str
    toml: Path
    images: int | None
    seconds: float | None


@dataclass(frozen=True)
class Plan:
    """trainings: in the order in which they start. up_to_date: names of adapters that need no training."""

    trainings: list[PlannedTraining]
    up_to_date: list[str]

    @property
    def seconds(self) -> float:
        """The sum of the known estimates."""
        return sum(training.seconds or 0.0 for training in self.trainings)

    @property
    def num_unknown(self) -> int:
        """The number of trainings without an estimate."""
        return sum(training.seconds is None for training in self.trainings)


def chosen(names: Sequence[str], everything: bool, root: Path | None) -> dict[str, Path]:
    """Return the TOML files of the adapters to train, by name, in the order of `names`, but dependencies first.

    Raises UsageError for unknown names.
    """
    known = trainable_adapters(root)
    if everything == bool(names):
        raise UsageError("name adapters to train, or give --all")
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"cannot train {', '.join(unknown)}; trainable adapters: {', '.join(known) or 'none'}")
    if everything:
        return known
    below, ordered = dependencies(root), dict[str, Path]()
    for name in names:
        earlier = [other for other in known if other in below[name] and other in names]  # dependencies first, in order
        ordered |= {other: known[other] for other in (*earlier, name)}
    return ordered


TRAINING_DATA = "tiny-imagenet-train"
"""The dataset on which an adapter is trained if neither the command nor its TOML file names one."""


def choose_data(wanted: Mapping[str, Path], given: str | None, everything: bool) -> tuple[str, dict[str, str]]:
    """Return the training data of a command, and the adapters of `wanted` that are trained on other data, with those.

    An adapter whose TOML file has `data` under [training] is trained on this dataset only. given: the data named on the
    command line; if it is None, that of the adapters, or TRAINING_DATA. everything: whether all adapters are wanted;
    those that are trained on other data are then left out. Raises UsageError if an adapter that was named is trained on
    other data, or if the adapters that were named are trained on different data.
    """
    required = {name: read_variant(toml).get("training", {}).get("data") for name, toml in wanted.items()}
    data = given or TRAINING_DATA
    if given is None and not everything:
        names = {own or TRAINING_DATA: name for name, own in required.items()}
        if len(names) > 1:
            listed = ", ".join(f"{name} on {own}" for own, name in sorted(names.items()))
            raise UsageError(f"these adapters are trained on different data ({listed}); use one command for each")
        data = next(iter(names))
    others = {name: own for name, own in required.items() if own not in (None, data)}
    if others and not everything:
        name, own = next(iter(others.items()))
        raise UsageError(f"{name} is trained on {own}, as its TOML file says; give --data {own}")
    return data, others


def make_plan(
    wanted: Mapping[str, Path],
    options: TrainOptions,
    count: int,
    data: Callable[[], str],
    *,
    root: Path | None = None,
    by_cost: bool = False,
    retrain: bool = False,
) -> Plan:
    """Return the plan for the TOML files `wanted`.

    count: number of training images. data: returns their description; it is called only if weights exist that may be
    up to date, since the hash requires that all images are read. by_cost: cheap trainings come first, but each after
    its dependencies; otherwise the order is that of `wanted`. retrain: whether adapters are trained although their
    weights are up to date.
    Raises AdapterError if the TOML file of an adapter is invalid.
    """
    below = dependencies(root)
    known = {name: _known(name, toml, options, count) for name, toml in wanted.items()}
    up_to_date: list[str] = []
    for name in wanted if not retrain else ():
        planned_below = below.get(name, set()) & wanted.keys() - set(up_to_date)
        if not planned_below and _is_up_to_date(known[name], options, data):
            up_to_date.append(name)
    names = [name for name in wanted if name not in up_to_date]
    if by_cost:
        names = cheap_first(names, below, {name: known[name].cost for name in names})
    trainings = [PlannedTraining(name, wanted[name], known[name].images, known[name].seconds) for name in names]
    return Plan(trainings, up_to_date)


def cheap_first(names: Sequence[str], below: Mapping[str, set[str]], cost: Mapping[str, float | None]) -> list[str]:
    """Return names in an order in which each comes after its dependencies `below`, and otherwise the cheapest first.

    Names without a known cost come last where their dependencies allow it.
    """
    order = TopologicalSorter({name: below.get(name, set()) & set(names) for name in names})
    order.prepare()
    ready: list[tuple[bool, float, int, str]] = []
    ordered: list[str] = []
    while order.is_active():
        for name in order.get_ready():
            value = cost[name]
            heapq.heappush(ready, (value is None, value or 0.0, names.index(name), name))
        name = heapq.heappop(ready)[-1]
        ordered.append(name)
        order.done(name)
    return ordered


@dataclass(frozen=True)
class _Known:
    """What is known about an adapter before its training.

    record: its training record, or {} if there is none. cost: seconds for the order, also from a record of another kind
    of device.
    """

    variant: AdapterConfig
    recipe: TrainConfig
    record: dict[str, Any]
    images: int | None
    cost: float | None
    seconds: float | None


def _known(name: str, toml: Path, options: TrainOptions, count: int) -> _Known:
    variant = AdapterConfig(name, toml.parent, read_variant(toml))
    recipe = recipe_of(variant, options.profile, options.changes)
    record = _record(weights_file(variant, options.out)) or _record(variant.file)
    fitted = record.get("steps") == 0
    images = count if fitted else recipe.images
    cost = None if fitted or recipe.seconds is None else recipe.seconds
    seconds = cost
    if images is not None and record.get("images"):
        used = record["seconds"] if record.get("cpu_seconds") is None else record["cpu_seconds"]
        cost = used * images / record["images"]
        same_kind = str(record["device"]).startswith("CPU") == options.device.startswith("cpu")
        seconds = cost if same_kind else None
    return _Known(variant, recipe, record, images, cost, seconds)


def _record(weights: Path) -> dict[str, Any]:
    try:
        return read_record(weights)
    except AdapterError:  # a record that cannot be read is replaced by the training
        return {}


def _is_up_to_date(known: _Known, options: TrainOptions, data: Callable[[], str]) -> bool:
    """Return whether weights exist that were trained with the same recipe, settings, data and bases."""
    variant, file = known.variant, weights_file(known.variant, options.out)
    record = _record(file)
    try:
        if not record or not shard_paths(file):
            return False
        recipe: dict[str, Any] = record["recipe"]
        fields = {"seed": known.recipe.seed} if record["steps"] == 0 else asdict(known.recipe)
        if any((recipe | {"seed": record["seed"]}).get(key, ...) != value for key, value in fields.items()):
            return False
        if recipe.get("model") not in (None, variant.config.get("model", {})):  # earlier versions did not record it
            return False
        if content_of(str(recipe.get("data"))) != content_of(data()):
            return False
        if "bases" not in recipe and "base" not in variant.config:
            return True  # nothing is below it; earlier versions recorded no bases at all
        with weights_from(options.out):
            model = untrained(
                *open_variant(variant.name, variant.folder / f"{variant.file.stem}.toml"), known.recipe.seed
            )
            return base_hashes(model) == recipe.get("bases", [])
    except TokbenchError:  # a base or a weight file is missing; the training reports it
        return False


def duration(seconds: float) -> str:
    """Return a time in the two largest units, for example "2 h 5 min"."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def describe_plan(plan: Plan, jobs: int, noun: str = "image") -> list[str]:
    """Return the lines of a table of the trainings and of a sentence about the total time. noun: one item of the
    data."""
    if not plan.trainings:
        return ["nothing to train"]
    rows = [("adapter", f"{noun}s", "estimate")]
    for one in plan.trainings:
        images = "-" if one.images is None else f"{one.images:,}"
        rows.append((one.name, images, "unknown" if one.seconds is None else duration(one.seconds)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{name:<{widths[0]}}  {images:>{widths[1]}}  {time:>{widths[2]}}" for name, images, time in rows]
    count = f"{len(plan.trainings)} training{'s' if len(plan.trainings) > 1 else ''}"
    if plan.num_unknown == len(plan.trainings):
        return [*lines, f"{count}, without an estimate"]
    total = f"{count}: about {duration(plan.seconds)} of CPU time"
    if jobs > 1:
        total += f", {duration(plan.seconds / jobs)} with --jobs {jobs}"
    if plan.num_unknown:
        total += f", and {plan.num_unknown} without an estimate"
    return [*lines, total]
