"""The one result that the cells of perturbed tokens make together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tokbench.metric_names import ALPHAS, METRICS, PerturbationNaming, perturbed_name
from tokbench.results.result import Discardable, Result
from tokbench.results.warning import few_images, joined
from tokbench.stats.bootstrap import Interval, bootstrap, metric_entry
from tokbench.stats.split_half import Replicates


@dataclass(frozen=True)
class CheckpointGroup:
    """Those of all cells."""

    parts: Sequence[Discardable]

    def discard(self) -> None:
        """Delete them, for the result is written."""
        for part in self.parts:
            part.discard()


def aggregate_cells(made: Sequence[tuple[str, Result]], extension: PerturbationNaming, anchor: str) -> Result:
    """One result of those of all cells, each with the cell's name.

    A number is the mean over cells. Its interval comes from what all cells have of the same images: of their values on
    halves, or of each image, the mean. Every cell's own value and interval stand beside it, `pfid.a0.9-d10`.
    """
    results = [result for _, result in made]
    first = replace(results[0], journal=CheckpointGroup([result.journal for result in results if result.journal]))
    if failed := [f"{result.error} (cell {cell})" for cell, result in made if result.error]:
        return replace(first, error=failed[0])
    perturbable = {name for name, spec in METRICS.items() if spec.perturbable}
    skipped = dict.fromkeys(first.computed - perturbable, "it says nothing of perturbed tokens")
    notes = dict(skipped)
    for result in results:
        skipped |= result.skipped
        notes |= result.notes
    told = _provenance(extension, anchor)
    whole = replace(
        first,
        metrics={},
        skipped=skipped,
        provenance=first.provenance | {"metrics": {}},
        per_image={},
        replicates={},
        readings={},
        notes=notes,
        computed=first.computed & (perturbable - set(skipped)),
    )
    for number in first.metrics:
        name = perturbed_name(number, extension)
        if name is None or not all(number in result.metrics for result in results):
            continue
        ways = [result.provenance["metrics"].get(number, {}) for result in results]
        common = {key: way for key, way in ways[0].items() if all(other.get(key) == way for other in ways)}
        for key, found in _means(name, number, results).items():
            whole.metrics[key], whole.provenance["metrics"][key] = found, common | told
        if all(number in result.replicates for result in results):
            whole.replicates[name] = _mean_replicates(number, results)
        elif number in first.per_image:
            whole.per_image |= {key: first.per_image[key] for key in ("index", "name")}
            whole.per_image[name] = _mean_per_image(number, results)
        for (cell, result), way in zip(made, ways, strict=True):
            key = f"{name}.{cell}"
            whole.metrics[key], whole.provenance["metrics"][key] = result.metrics[number], way | told
    few = few_images(whole.num_images, whole.metrics)
    return replace(whole, warnings=joined(first.warnings, (), few))


def _provenance(extension: PerturbationNaming, anchor: str) -> dict[str, str]:
    grid = " ".join(f"{alpha:g}" for alpha in ALPHAS)
    told = {
        "perturbed": f"tokbench grid, mean over alpha {grid}"
        + (", up to three deltas by codebook size as in arXiv:2509.12474" if extension.letter == "p" else "")
        + "; published pFIDs are not comparable"
    }
    if extension.letter == "p":
        told["anchor"] = anchor
    return told | ({"extension": extension.says} if extension.says else {})


def _means(name: str, number: str, results: Sequence[Result]) -> dict[str, dict[str, object]]:
    """The mean over cells with its interval and, where it can be had, its extrapolation, as a result holds them."""
    values = [result.metrics[number]["value"] for result in results]
    value = math.nan if None in values else math.fsum(values) / len(values)
    count, seed = results[0].num_images, results[0].provenance["seed"]
    if all(number in result.replicates for result in results):
        made = _mean_replicates(number, results)
        return {key: metric_entry(mean, interval) for key, mean, interval in made.entries(name, value, count)}
    if number in results[0].per_image and not math.isnan(value):
        found = bootstrap(_mean_per_image(number, results), seed)
        # An image that is exact in some cells only counts in their values, and not in its own mean.
        return {name: metric_entry(value, Interval(min(found.low, value), max(found.high, value), found.n))}
    return {name: metric_entry(value) | {"n": count}}


def _mean_replicates(number: str, results: Sequence[Result]) -> Replicates:
    """Of the same halves in all cells, so of the mean of the numbers. All numbers of perturbed tokens that are no means
    over images are distances, which have halves."""
    return Replicates.from_array(np.mean([result.replicates[number].as_array() for result in results], axis=0))


def _mean_per_image(number: str, results: Sequence[Result]) -> np.ndarray:
    """Of each image, NaN where a cell has no value."""
    return np.mean([result.per_image[number] for result in results], axis=0)
