"""The results of earlier evaluations that need not be measured again (`tokbench eval --skip-existing`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tokbench.data.stream import CHUNK, ImageStream
from tokbench.errors import TokbenchError
from tokbench.evaluation.config import EvalConfig
from tokbench.evaluation.evaluate import bind_adapter
from tokbench.evaluation.provenance import describe_adapter
from tokbench.evaluation.steps import TokenTransform
from tokbench.metric_names import METRICS, metric_of
from tokbench.protocol.protocol import describe_protocol
from tokbench.results.result import Result, load
from tokbench.tokenizers.registry import LoadedAdapter
from tokbench.weights.registry import KNOWN_WEIGHTS, is_present


@dataclass
class Plan:
    """What remains to be measured.

    kept: finished results by adapter, which have all metrics. groups: the configuration and the adapters of each pass;
    the adapters of a pass lack the same metrics.
    """

    kept: dict[str, list[Result]]
    groups: list[tuple[EvalConfig, list[LoadedAdapter]]]


def plan_remaining(
    adapters: Sequence[LoadedAdapter], stream: ImageStream, config: EvalConfig, out: Path, allow_download: bool = False
) -> Plan:
    """Return which adapters and metrics have no result in the results folder `out`.

    A result is finished if code, weights, protocol, seed, precision, device and the pixels are the same as now. The
    images are therefore read once if there is a candidate. allow_download: whether missing weights can be downloaded,
    so that metrics without them are tried again.
    """
    candidates = {adapter.name: _candidates(adapter, stream, config, out) for adapter in adapters}
    pixels = _sha256_of(stream) if any(candidates.values()) else ""
    kept: dict[str, list[Result]] = {}
    lacking: dict[tuple[str, ...], list[LoadedAdapter]] = {}
    for adapter in adapters:
        results = candidates[adapter.name]
        missing = config.metrics
        if results and all(result.provenance["data"]["sha256"] == pixels for result in results):
            missing = tuple(n for n in missing if any(_lacks(result, n, allow_download) for result in results))
        if missing:
            lacking.setdefault(missing, []).append(adapter)
        else:
            kept[adapter.name] = results
    return Plan(kept, [(replace(config, metrics=metrics), members) for metrics, members in lacking.items()])


def _candidates(adapter: LoadedAdapter, stream: ImageStream, config: EvalConfig, out: Path) -> list[Result]:
    """Return the results of all steps of the task that agree with this evaluation except perhaps in their pixels; empty
    if one of them is missing."""
    if bind_adapter(adapter, stream, config.device) is not None:
        return []
    try:
        steps = config.task.steps(adapter.model)
    except Exception:  # third-party code may raise any exception; the evaluation reports it
        return []
    facts = describe_adapter(adapter)
    stored = [result for path in sorted((out / adapter.name).glob("*.json")) if (result := _load(path)) is not None]
    found = []
    for step in steps:
        same = [result for result in stored if _agrees(result, step, facts, stream, config)]
        if not same:
            return []
        found.append(same[0])
    return found


def _load(path: Path) -> Result | None:
    try:
        return load(path)
    except TokbenchError:  # the evaluation writes it anew, or reports it
        return None


def _agrees(
    earlier: Result, step: TokenTransform, facts: dict[str, object], stream: ImageStream, config: EvalConfig
) -> bool:
    """Return whether an earlier result is of this adapter, step, data set, protocol and configuration."""
    if earlier.error or (earlier.dataset, earlier.task) != (stream.name, step.task):
        return False
    data, summary = earlier.provenance["data"], stream.summary()
    if (data["limit"], data["available"]) != (summary.limited, summary.available):
        return False
    if stream.side is not None and (data["width"], data["height"]) != (stream.side, stream.side):
        return False
    if (config.statistics is None) != ("reference" not in earlier.provenance):
        return False
    if config.statistics is not None and config.statistics.sha256 != earlier.provenance["reference"]["sha256"]:
        return False
    now = replace(
        earlier,
        provenance=earlier.provenance
        | {
            "adapter": facts | step.recorded,
            "protocol": describe_protocol(stream.protocol),
            "seed": config.seed,
            "precision": config.precision,
            "device": config.device.partition(":")[0],
        },
    )
    return not now.differs_from(earlier)


def _sha256_of(stream: ImageStream) -> str:
    """Read all images and return the hash that results record."""
    loader = stream.batches(CHUNK)
    for _ in loader:
        loader.prefetch()
    return stream.summary().sha256


def _lacks(result: Result, metric: str, allow_download: bool) -> bool:
    """Return whether a result lacks a metric that can be computed now.

    A metric that was skipped is not tried again, unless it was skipped for missing weights that are there now or may be
    downloaded.
    """
    if any(metric_of(number) == metric for number in result.metrics):
        return False
    if metric not in result.skipped:
        return True
    reason, spec = result.skipped[metric], METRICS[metric]
    sources = KNOWN_WEIGHTS.get(spec.network or spec.reader or "", ())
    if not sources or sources[0].file not in reason:
        return False
    # Another file may hold only a part of the network; then the reason is not that all of them were missing.
    sufficient = sources if "which was not there" in reason else sources[:1]
    return is_present(sufficient) or allow_download
