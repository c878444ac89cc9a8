"""The results of earlier evaluations that need not be measured again (`tokbench eval --skip-existing`, or `out` of
`tokbench.evaluate`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tokbench.data.stream import CHUNK, ImageStream
from tokbench.errors import MissingWeights, TokbenchError
from tokbench.evaluation.config import EvalConfig
from tokbench.evaluation.evaluate import bind_adapter
from tokbench.evaluation.provenance import describe_adapter
from tokbench.evaluation.steps import TokenTransform
from tokbench.extractors.pool import ExtractorPool
from tokbench.extractors.specs import EXTRACTORS
from tokbench.metric_names import METRICS, metric_of
from tokbench.protocol.protocol import describe_protocol
from tokbench.results.result import Result, load, settings, side_of
from tokbench.timing import device_name
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
    adapters: Sequence[LoadedAdapter], stream: ImageStream, config: EvalConfig, out: Path, networks: ExtractorPool
) -> Plan:
    """Return which adapters and metrics have no result in the results folder `out`.

    A result is finished if code, weights, protocol, seed, precision, device and the pixels are the same as now. The
    images are therefore read once if there is a candidate. networks: the frozen networks of the run; metrics whose
    weights or packages were missing are tried again if they are there now or may be downloaded.
    """
    candidates = {adapter.name: _candidates(adapter, stream, config, out) for adapter in adapters}
    pixels = _sha256_of(stream) if any(candidates.values()) else ""
    kept: dict[str, list[Result]] = {}
    lacking: dict[tuple[str, ...], list[LoadedAdapter]] = {}
    for adapter in adapters:
        results = candidates[adapter.name]
        missing = config.metrics
        if results and all(result.provenance["data"]["sha256"] == pixels for result in results):
            missing = tuple(n for n in missing if any(_lacks(result, n, config, networks) for result in results))
        if missing:
            lacking.setdefault(missing, []).append(adapter)
        else:
            kept[adapter.name] = results
    return Plan(kept, [(replace(config, metrics=metrics), members) for metrics, members in lacking.items()])


def merged(result: Result, out: Path) -> Result:
    """Return a result as it was saved in the results folder `out`, with the metrics that were measured earlier."""
    return replace(load(out / result.path), notes=result.notes, lacking=result.lacking, computed=result.computed)


def _candidates(adapter: LoadedAdapter, stream: ImageStream, config: EvalConfig, out: Path) -> list[Result]:
    """Return the results of all steps of the task that agree with this evaluation except perhaps in their pixels; empty
    if one of them is missing."""
    if bind_adapter(adapter, stream, config.device) is not None:
        return []
    try:
        steps = config.task.steps(adapter.model)
        facts = describe_adapter(adapter)
    except Exception:  # third-party code may raise any exception; the evaluation reports it
        return []
    stored = [result for path in sorted((out / adapter.name).glob("*.json")) if (result := _load(path)) is not None]
    found = []
    for step in steps:
        same = [result for result in stored if _agrees(result, step, facts, stream, config)]
        if not same:
            return []
        found.append(same[0])
    return found


def _load(path: Path) -> Result | None:
    """Return the result at a path, or None if the evaluation must write it again or report that it is unreadable."""
    try:
        result = load(path)
    except TokbenchError:
        return None
    has_intervals = any(entry.get("low") is not None for entry in result.metrics.values())
    lost = has_intervals and not path.with_suffix(".npz").exists()  # the values from which comparisons are computed
    return None if lost else result


def _agrees(
    earlier: Result, step: TokenTransform, facts: dict[str, object], stream: ImageStream, config: EvalConfig
) -> bool:
    """Return whether an earlier result is of this adapter, step, data set, protocol and configuration."""
    if earlier.error or (earlier.dataset, earlier.task) != (stream.name, step.task):
        return False
    data, summary = earlier.provenance["data"], stream.summary()
    if (data["limit"], data["available"]) != (summary.limited, summary.available):
        return False
    if stream.side is not None and side_of(data) != stream.side:
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
            "restore": config.restorer.description if config.restorer else {},
        },
    )
    return not now.differs_from(earlier)


def _sha256_of(stream: ImageStream) -> str:
    """Read all images and return the hash that results record."""
    loader = stream.batches(CHUNK)
    for _ in loader:
        loader.prefetch()
    return stream.summary().sha256


def _lacks(result: Result, metric: str, config: EvalConfig, networks: ExtractorPool) -> bool:
    """Return whether a result lacks a metric that can be computed now.

    Speeds of another device or batch size do not count. A metric that was skipped is not tried again, unless it was
    skipped for missing weights or packages that are there now or may be downloaded.
    """
    spec = METRICS[metric]
    if numbers := [number for number in result.metrics if metric_of(number) == metric]:
        return spec.timed and not all(_has_speed_settings(result, number, config) for number in numbers)
    if metric not in result.skipped:
        return True
    reason = result.skipped[metric]
    if spec.reader and reason.endswith("not installed"):
        return _is_installed(spec.reader, networks)
    extractor = EXTRACTORS.get(spec.network or "")
    sources = extractor.weight_files if extractor else KNOWN_WEIGHTS.get(spec.reader or "", ())
    if not sources or sources[0].file not in reason:
        return False
    # Another file may hold only a part of the network; then the reason is not that all of them were missing.
    sufficient = sources if "which was not there" in reason else sources[:1]
    return is_present(sufficient) or networks.allow_download


def _has_speed_settings(result: Result, number: str, config: EvalConfig) -> bool:
    """Return whether a speed was measured on this device and with this batch size."""
    recorded = settings(result, number)
    sizes = recorded.get("batch_size", "").split(" and ")  # several if the memory was too small for the first one
    return recorded.get("device") == device_name(config.device) and str(config.batch_size) in sizes


def _is_installed(reader: str, networks: ExtractorPool) -> bool:
    try:
        networks.reader(reader)
    except MissingWeights:
        return False
    return True
