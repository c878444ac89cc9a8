"""Aggregation of the results of all grid cells of perturbed tokens into one result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tokbench.metric_names import ALPHAS, METRICS, PerturbationNaming, perturbed_name
from tokbench.results.result import Discardable, Result
from tokbench.results.warning import few_images, merged
from tokbench.stats.bootstrap import Interval, bootstrap, metric_entry
from tokbench.stats.split_half import Replicates


@dataclass(frozen=True)
class CheckpointGroup:
    """The checkpoints of all cells."""

    parts: Sequence[Discardable]

    def discard(self) -> None:
        """Delete the checkpoints after the result was written."""
        for part in self.parts:
            part.discard()


def aggregate_cells(named_results: Sequence[tuple[str, Result]], extension: PerturbationNaming, anchor: str) -> Result:
    """Return one result from those of all cells, each given with the cell's name.

    A number is the mean over cells. Its interval is computed from values of the same images in all cells: the mean over
    cells of the values on halves, or of each image's value. The value and interval of every cell are recorded, too, as
    `pfid.a0.9-d10`.
    """
    results = [result for _, result in named_results]
    checkpoints = [result.checkpoint for result in results if result.checkpoint]
    first = replace(results[0], checkpoint=CheckpointGroup(checkpoints))
    if failed := [f"{result.error} (cell {cell})" for cell, result in named_results if result.error]:
        return replace(first, error=failed[0])
    perturbable = {name for name, spec in METRICS.items() if spec.perturbable}
    skipped = dict.fromkeys(first.computed - perturbable, "it is not defined for perturbed tokens")
    notes = dict(skipped)
    for result in results:
        skipped |= result.skipped
        notes |= result.notes
    facts = _provenance(extension, anchor)
    combined = replace(
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
        provenances = [result.provenance["metrics"].get(number, {}) for result in results]
        common = {
            key: value for key, value in provenances[0].items() if all(other.get(key) == value for other in provenances)
        }
        for key, entry in _means(name, number, results).items():
            combined.metrics[key], combined.provenance["metrics"][key] = entry, common | facts
        if all(number in result.replicates for result in results):
            combined.replicates[name] = _mean_replicates(number, results)
        elif number in first.per_image:
            combined.per_image |= {key: first.per_image[key] for key in ("index", "name")}
            combined.per_image[name] = _mean_per_image(number, results)
        for (cell, result), provenance in zip(named_results, provenances, strict=True):
            key = f"{name}.{cell}"
            combined.metrics[key], combined.provenance["metrics"][key] = result.metrics[number], provenance | facts
    few = few_images(combined.num_images, combined.metrics)
    return replace(combined, warnings=merged(first.warnings, (), few))


def _provenance(extension: PerturbationNaming, anchor: str) -> dict[str, str]:
    grid = " ".join(f"{alpha:g}" for alpha in ALPHAS)
    facts = {
        "perturbed": f"tokbench grid, mean over alpha {grid}"
        + (", up to three deltas by codebook size as in arXiv:2509.12474" if extension.letter == "p" else "")
        + "; published pFIDs are not comparable"
    }
    if extension.letter == "p":
        facts["anchor"] = anchor
    return facts | ({"extension": extension.description} if extension.description else {})


def _means(name: str, number: str, results: Sequence[Result]) -> dict[str, dict[str, object]]:
    """Return the mean over cells, with its interval and, where possible, its extrapolation, as entries of a result."""
    values = [result.metrics[number]["value"] for result in results]
    value = math.nan if None in values else math.fsum(values) / len(values)
    count, seed = results[0].num_images, results[0].provenance["seed"]
    if all(number in result.replicates for result in results):
        replicates = _mean_replicates(number, results)
        return {key: metric_entry(mean, interval) for key, mean, interval in replicates.entries(name, value, count)}
    if number in results[0].per_image and not math.isnan(value):
        interval = bootstrap(_mean_per_image(number, results), seed)
        # An image that is exact in some cells counts in the values of the others but not in the mean per image.
        return {name: metric_entry(value, Interval(min(interval.low, value), max(interval.high, value), interval.n))}
    return {name: metric_entry(value) | {"n": count}}


def _mean_replicates(number: str, results: Sequence[Result]) -> Replicates:
    """Return the mean over cells of the values on the same halves. All numbers of perturbed tokens that are not means
    over images are distances, which have halves."""
    return Replicates.from_array(np.mean([result.replicates[number].as_array() for result in results], axis=0))


def _mean_per_image(number: str, results: Sequence[Result]) -> np.ndarray:
    """Return the mean over cells for each image, NaN where a cell has no value."""
    return np.mean([result.per_image[number] for result in results], axis=0)
