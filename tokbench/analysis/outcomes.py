"""Comparison of a committed result with its new measurement: one outcome for every number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from tokbench.analysis.compare import Difference, difference, per_image_pairs, same_settings
from tokbench.analysis.regression_report import Check, Kind, Outcome, RegressionReport, Skipped
from tokbench.analysis.tolerances import Rules
from tokbench.metric_names import MetricName, Tolerance
from tokbench.results.columns import column_of
from tokbench.results.result import Result
from tokbench.stats.bootstrap import mean, mean_statistic

NUM_SEEDS = 3
"""Number of further seeds that are measured if the decoder sampled different noise."""

NOISE_LEVEL = 0.999
"""Probability with which a difference between two draws of the noise counts as noise."""

_WEIGHTS = {
    "parameters_sha256": "weights differ from those of",
    "weights": "weights differ from those of",
    "fingerprint": "weights differ from those of",
    "config_sha256": "configuration differs from",
    "other_parameters_sha256": "weights outside its module differ from",
}
"""The entries of the provenance that tell checkpoints apart, with the words of the message about a difference."""


def compare_results(
    committed: Result,
    now: Result,
    limited: bool,
    rules: Rules,
    report: RegressionReport,
    more_seeds: Callable[[], list[Result]] | None = None,
) -> None:
    """Add the outcome of every number of a committed result to the report, or why it is not compared.

    now: the result measured now. limited: whether only the first images were measured. more_seeds: if the decoder
    sampled other noise than for the committed result, measures `now` with further seeds.
    """

    def skip(what: str, reason: str, kind: Kind = "absent") -> None:
        report.skipped.append(Skipped(committed.adapter, committed.group, what, reason, kind))

    changed = _changed_weights(committed, now)
    if changed and not rules.new_weights:
        hint = "; --new-weights compares another checkpoint with the committed numbers"
        return skip("all", f"the tokenizer's {changed} the committed result{hint}", "refused")
    ours, theirs = (result.provenance["data"]["sha256"] for result in (committed, now))
    if not limited and ours != theirs:
        bad = [(image["name"], image["reason"]) for image in now.bad_images]
        return skip("all", other_pixels(ours, theirs, bad), "refused")
    report.measured.append((committed, now))
    for number in committed.metrics:
        name = MetricName.parse(number)
        spec = name.spec
        if name.is_part or (spec is not None and spec.timed):
            continue  # speeds depend on the machine; parts of a number are compared as a whole
        tolerance = rules.tolerance(number, committed.metrics[number]["value"])
        if spec is None or tolerance is None:
            package = committed.provenance["metrics"].get(number, {}).get("package")
            absent = f"package {package}, which computes it, is not installed here or cannot be loaded"
            skip(number, absent if package else "this version of tokbench does not compute it", "missing")
            continue
        few = f"it depends on all {committed.num_images:,} images, and {now.num_images:,} were measured"
        if spec.needs_codebook and _codebook(committed) and not _codebook(now):
            skip(number, *_lost(number, committed, "this tokenizer no longer has a codebook"))
        elif limited and mean_statistic(number, committed.per_image) is None:
            skip(number, few)
        elif number not in now.metrics:
            skip(number, *_why_absent(name, committed, now, limited))
        elif not same_settings(number, committed, now):
            skip(number, "its network, weights or settings differ from those of the committed result", "refused")
        elif limited and per_image_pairs(number, committed, now) is None:
            skip(number, few)
        elif (own := _value_of_images(number, committed, now)) is not None:
            stored = committed.metrics[number]["value"]
            reason = f"the committed value {stored:g} is not that of its images in the .npz file, {own:g}; restore both"
            skip(number, reason, "refused")
        else:
            found = difference(number, committed, now)
            noise = 0.0
            if more_seeds and not (found.second_only or tolerance.holds(found.gap, found.first or 0.0)):
                noise = noise_between_seeds(number, [now, *more_seeds()])
            outcome = outcome_of(found, tolerance, rules, noise, bool(changed), bool(more_seeds))
            where = committed.adapter, committed.group
            report.checks.append(Check(*where, found, tolerance, outcome, bool(more_seeds), bool(changed)))
    return None


def _value_of_images(number: str, committed: Result, now: Result) -> float | None:
    """Return the value that follows from the per-image values of a committed result if its own value differs from it.

    None if both agree, or if the number is not simply computed from the mean over images, which the new result shows.
    """
    expected, found = (_of_mean(number, result) for result in (committed, now))
    stored, value = (result.metrics[number]["value"] for result in (committed, now))
    if expected is None or found is None or stored is None or value is None:
        return None
    simple = math.isclose(value, found, rel_tol=1e-9, abs_tol=1e-12)
    return expected if simple and not math.isclose(stored, expected, rel_tol=1e-6, abs_tol=1e-9) else None


def _of_mean(number: str, result: Result) -> float | None:
    how = mean_statistic(number, result.per_image)
    if how is None:
        return None
    values = result.per_image[how.values]
    values = values[~np.isnan(values)]
    return how.of(mean(values)) if len(values) else None


def _changed_weights(committed: Result, now: Result) -> str:
    """Return what differs between the checkpoints of two results, or an empty text."""
    for key, what in _WEIGHTS.items():
        ours, theirs = (result.provenance["adapter"].get(key) for result in (committed, now))
        older = ours is None and key in ("config_sha256", "other_parameters_sha256")  # older results lack these
        if ours != theirs and not older:
            return what
    return ""


def other_pixels(before: str, now: str, bad: Sequence[tuple[str, str]]) -> str:
    """Return the message about images whose pixels have changed. bad: (name, reason) of images that are unreadable."""
    unreadable = f"; {len(bad)} images cannot be read, such as {bad[0][1]}" if bad else ""
    return f"the images' pixels were {before[:12]}, now {now[:12]}{unreadable}"


def noise_between_seeds(number: str, draws: Sequence[Result]) -> float:
    """Return the largest difference of a number between two seeds that counts as noise.

    draws: results that differ only in the seed. The standard deviation comes from the seeds alone: for a mean over
    images from those of each image, so that a change of one image cannot hide in the differences between images. It is
    0 if the number could not be computed with every seed.
    """
    from scipy.special import stdtrit  # SciPy takes longer to import than comparisons run

    if all(number in draw.per_image for draw in draws):
        values = np.stack([draw.per_image[number] for draw in draws])
        values = values[:, ~np.isnan(values).any(0)]
    else:
        values = np.array([[draw.metrics.get(number, {}).get("value")] for draw in draws], dtype=float)
    n, freedom = values.shape[1], values.shape[1] * (len(draws) - 1)
    if n == 0 or np.isnan(values).any():
        return 0.0
    deviation = math.sqrt(2 * values.var(axis=0, ddof=1).sum()) / n  # of the difference of two draws
    return float(stdtrit(freedom, (1 + NOISE_LEVEL) / 2)) * deviation


def _why_absent(name: MetricName, committed: Result, now: Result, limited: bool) -> tuple[str, Kind]:
    """Return why a committed number was not computed, and the kind of the entry.

    It is missing if this machine lacks something. It is absent if --limit leaves too few images, or if it is an
    extrapolation, whose availability depends on a threshold (the underlying number is compared). Otherwise it is lost.
    """
    metric = name.metric or ""
    reason = now.skipped.get(metric, f"{now.adapter} no longer has this number")
    few_words = limited and name.spec is not None and name.spec.reader  # the first images may contain no word or face
    if metric in now.lacking:
        return reason, "missing"
    if few_words:
        return reason, "absent"
    if name.infinite and name.finite in now.metrics:
        return "these images allow no extrapolation", "absent"
    return _lost(str(name), committed, reason)


def _lost(number: str, committed: Result, reason: str) -> tuple[str, Kind]:
    remedy = f"if that is intended, delete {number} from {committed.path} or measure that result again"
    return f"it was committed and can no longer be computed ({reason}); {remedy}", "lost"


def _codebook(result: Result) -> bool:
    return bool(result.provenance["adapter"].get("codebook"))


def outcome_of(
    found: Difference,
    tolerance: Tolerance,
    rules: Rules | None = None,
    noise: float = 0.0,
    new_weights: bool = False,
    redrawn: bool = False,
) -> Outcome:
    """Return the outcome of a number.

    noise: differences up to this size count as noise. new_weights: another checkpoint was measured, so that a number
    without a direction may change. redrawn: the decoder sampled different noise, so that single images differ.
    """
    rules = rules or Rules()
    if found.second_only:
        return "regression"  # images that were exact are no longer exact
    if found.first is None or found.second is None:
        return "same" if found.first is found.second and not found.alone else "better" if found.alone else "regression"
    more, allowed = column_of(found.number)[1].more, rules.allowed_drop(found.number)
    if tolerance.holds(found.gap, found.first):
        strict = rules.strict and allowed is None and not redrawn
        if strict and found.moved_in == found.number and _an_image_is_worse(found, tolerance, more):
            return "regression"
        return "better" if found.first_only else "same"
    if abs(found.gap) <= noise:
        return "within noise"
    if more is None:
        return "changed" if new_weights else "regression"
    if (found.gap > 0) == more:
        return "better"
    return "allowed drop" if allowed is not None and allowed.holds(found.gap, found.first) else "regression"


def _an_image_is_worse(found: Difference, tolerance: Tolerance, more: bool | None) -> bool:
    worse = [gap for _, gap in found.moved if more is None or (gap < 0) == more]
    return not all(tolerance.holds(gap, found.first or 0.0) for gap in worse)
