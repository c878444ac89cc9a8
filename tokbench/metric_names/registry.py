"""METRICS: the specs of all metrics by name, of tokbench and of other packages, and values derived from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from tokbench.errors import UsageError
from tokbench.metric_names.builtin import BUILTIN
from tokbench.metric_names.perturbation import EXTENSIONS
from tokbench.metric_names.plugins import PluginRegistry
from tokbench.metric_names.spec import ITEMS, TASK_MODALITIES, MetricSpec, Modality, TaskKind

METRICS: PluginRegistry[MetricSpec] = PluginRegistry("metric", "tokbench.metrics", MetricSpec, BUILTIN)

_Class = TypeVar("_Class", bound=type)


def register_metric(spec: MetricSpec, cls: _Class | None = None) -> Callable[[_Class], _Class]:
    """Add a metric to this process: `register_metric(spec, MyMetric)`, or `@register_metric(spec)` above the class.

    spec: the spec of the metric; its `path` is replaced by the path of the class. Installed packages list their specs
    in the entry-point group `tokbench.metrics` instead, which makes them available to every command.
    Raises UsageError if the name or one of the numbers belongs to another metric.
    """

    def register(made: _Class) -> _Class:
        METRICS.register(replace(spec, path=f"{made.__module__}:{made.__qualname__}"), made)
        return made

    if cls is not None:
        register(cls)
    return register


def metrics_for(modality: Modality) -> list[str]:
    """Return all metrics that are computed on data of one kind."""
    return [name for name, spec in METRICS.items() if modality in spec.modalities]


def defaults(task: TaskKind, modality: Modality = "image") -> list[str]:
    """Return the metrics that a task computes on data of one kind when `--metrics` is not given."""
    return [name for name in metrics_for(modality) if task in METRICS[name].default_for]


def groups() -> dict[str, list[str]]:
    """Return the metrics of every group by the name of the group."""
    found: dict[str, list[str]] = {}
    for name, spec in METRICS.items():
        if spec.group:
            found.setdefault(spec.group, []).append(name)
    return found


def refuse_task(task: TaskKind, modality: Modality) -> None:
    """Raise UsageError if a task does not exist for a modality."""
    if modality not in (known := TASK_MODALITIES[task]):
        raise UsageError(f"--task {task} exists for {_nouns(known)} only, and these data are {_nouns([modality])}")


def _nouns(modalities: Sequence[Modality]) -> str:
    return ", ".join(f"{ITEMS[modality].noun}s" for modality in modalities)


def perturbable() -> dict[str, str]:
    """Return the form of the name of every number that perturbed tokens have, by plain name: `fid` for `rfid`."""
    return {number.name: number.perturbed for spec in METRICS.values() for number in spec.numbers if number.perturbed}


def measurable(names: Sequence[str], strict: bool) -> list[str]:
    """Return those metrics that are computed for perturbed tokens.

    Raises UsageError if `strict` and other metrics are requested, or if no metric remains.
    """
    kept = [name for name in names if METRICS[name].perturbable]
    others = [name for name in names if name not in kept]
    if (others and strict) or not kept:
        known = ", ".join(name for name, spec in METRICS.items() if spec.perturbable)
        raise UsageError(f"--task perturb has no {', '.join(others) or 'metrics'}; it has {known}")
    return kept


def number_names(spec: MetricSpec) -> list[str]:
    """Return every name that a number of a metric can have before the dot, except extrapolations."""
    perturbed = [
        naming.apply(number.perturbed) for naming in EXTENSIONS.values() for number in spec.numbers if number.perturbed
    ]
    return [*spec.names(), *perturbed]


def _refuse_taken_numbers(spec: MetricSpec) -> None:
    """Raise UsageError if another metric has a number of the same name."""
    own = number_names(spec)
    for name, other in METRICS.items():
        if name != spec.name and (taken := set(own) & set(number_names(other))):
            owner = METRICS.package(name)
            raise UsageError(
                f"its number '{min(taken)}' belongs to the metric '{name}' of {owner}; give it another name"
            )
    if len(own) != len(set(own)):
        raise UsageError("two of its numbers have the same name")


METRICS.checks.append(_refuse_taken_numbers)
