"""The regression check: committed results measured again and compared number by number.

Images, weights and seed are the same as in the committed result, so a deterministic decoder reproduces the images. A
difference larger than the tolerance is then a real change, however few images caused it, and a confidence interval over
images does not apply. There is one exception: if the decoder samples noise and the device kind differs, the noise is
different too. Further seeds are then measured, and a difference counts as noise if seeds differ as much.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from tokbench.analysis.outcomes import NUM_SEEDS, compare_results, other_pixels
from tokbench.analysis.regression_report import RegressionReport, Skipped
from tokbench.analysis.tolerances import Rules
from tokbench.data.dataset import Dataset
from tokbench.data.reading import DEFAULTS, ReadOptions
from tokbench.data.sources.patterns import is_path
from tokbench.data.stream import ImageStream
from tokbench.errors import AdapterError, NoAdapter, TokbenchError, UsageError
from tokbench.evaluation.config import Context, EvalConfig
from tokbench.evaluation.evaluate import evaluate
from tokbench.evaluation.metric_set import format_error
from tokbench.evaluation.randomness import draws_noise
from tokbench.evaluation.restore import Restorer
from tokbench.evaluation.sample_plan import SamplePlan
from tokbench.evaluation.tasks import parse_task
from tokbench.extractors.pool import ExtractorPool
from tokbench.metric_names import METRICS, MetricName
from tokbench.modalities.open import open_dataset
from tokbench.protocol.protocol import load_protocol
from tokbench.results.result import Result, side_of
from tokbench.stats.bootstrap import mean_statistic
from tokbench.tokenizers.registry import LoadedAdapter, load_adapter


@dataclass(frozen=True)
class CheckConfig:
    """What a check measures, and what it accepts.

    data: the path of the images, for results on images that are not a named dataset. reading: how its images are found;
    sampling and pairing are those that a result records. root: the folder with adapters and datasets. limit: use only
    the first images. rules: how the numbers are judged. batch_size: images per forward pass. sources: by
    name of the adapter, the argument that loads it now, where its checkpoint has moved.
    """

    data: str | None = None
    reading: ReadOptions = DEFAULTS
    root: Path | None = None
    limit: int | None = None
    rules: Rules = field(default_factory=Rules)
    batch_size: int = 16
    sources: Mapping[str, str] = field(default_factory=dict)

    def place(self, dataset: str) -> str:
        """Return the name or path with which a dataset is opened."""
        return self.data if self.data is not None and is_path(self.data) else dataset


def check(
    committed: Sequence[Result], config: CheckConfig | None = None, context: Context | None = None
) -> RegressionReport:
    """Measure every committed result again and compare it number by number.

    context: only its cache, networks, allow_download and progress are used. Returns a report that also lists what could
    not be compared.
    """
    config, context, report = config or CheckConfig(), context or Context(), RegressionReport()
    networks = context.networks or ExtractorPool(allow_download=context.allow_download)
    passes: dict[tuple[Any, ...], list[Result]] = defaultdict(list)
    for result in committed:
        provenance = result.provenance
        data = provenance["data"]
        selected = result.dataset, side_of(data), data["limit"], data.get("sampling", "first")
        restorer = provenance.get("restore", {})
        rules = provenance["protocol"]["name"], provenance["protocol"].get("degrade"), restorer.get("source")
        key = *selected, rules, provenance["seed"], result.task
        passes[key].append(result)
    for (dataset, size, count, _, (protocol_name, degrade, restore), seed, task_name), results in passes.items():
        try:
            task, protocol = parse_task(task_name), load_protocol(protocol_name).degraded(degrade)
            if config.limit and not task.paired:
                reason = "generated samples have no per-image values; check them without --limit"
                report.skipped += [Skipped(one.adapter, one.group, "all", reason, "absent") for one in results]
                continue
            reading = config.reading.recorded(results[0].provenance)
            place, count_read = config.place(dataset), count if task.paired else None
            whole = open_dataset(place, protocol, size, count_read, config.root, reading)
            restorer = Restorer(load_adapter(restore, networks.device, config.root)) if restore else None
            if whole.name != dataset:
                raise UsageError(f"{config.data} does not contain {dataset}, on which these results were measured")
        except TokbenchError as error:
            report.skipped += [Skipped(result.adapter, result.group, "all", str(error)) for result in results]
            continue
        images: ImageStream = whole
        if config.limit:
            images = some = open_dataset(place, protocol, size, count, config.root, reading)
            some.limit = min(count or config.limit, config.limit)  # the first images of the same sample
        elif not task.paired:
            images = SamplePlan(whole.name, protocol, count or len(whole), whole)
        limited = task.paired and len(images) < len(whole)
        comparable = _comparable(results, whole, limited, protocol.sha256, report)
        adapters = _load(comparable, networks.device, config.root, context.allow_download, report, config)
        if not adapters:
            continue
        wanted = {
            MetricName.parse(number).metric
            for result, _ in adapters
            for number in result.metrics
            if not limited or mean_statistic(number, result.per_image)
        }
        names = [name for name, spec in METRICS.items() if name in wanted and not spec.timed]
        try:
            settings = EvalConfig(
                tuple(names), task, config.batch_size, seed, networks.device, networks.precision, restorer=restorer
            )
            run = Context(cache=context.cache, networks=networks, progress=context.progress)
            repeated = evaluate([loaded for _, loaded in adapters], images, settings, run)
            _discard(repeated)
        except TokbenchError as error:  # no image could be read
            report.skipped += [Skipped(one.adapter, one.group, "all", str(error), "failed") for one, _ in adapters]
            continue
        for (result, loaded), now in zip(adapters, repeated, strict=True):
            if now.error:
                report.skipped.append(Skipped(result.adapter, result.group, "all", now.error, "failed"))
                continue
            more_seeds = None
            if result.provenance["device"] != now.provenance["device"]:
                try:
                    if draws_noise(loaded.model, task, images, networks.device, seed):
                        more_seeds = cache(partial(_measure_seeds, loaded, images, settings, run))
                except Exception as error:  # third-party code may raise anything
                    report.skipped.append(Skipped(result.adapter, result.group, "all", format_error(error), "failed"))
                    continue
            compare_results(result, now, limited, config.rules, report, more_seeds)
    if config.rules.allow_missing:
        report.allow_missing()
    return report


def _measure_seeds(loaded: LoadedAdapter, images: ImageStream, settings: EvalConfig, run: Context) -> list[Result]:
    """Return the results of one adapter with further seeds."""
    results = [
        evaluate([loaded], images, replace(settings, seed=settings.seed + more), run)[0]
        for more in range(1, NUM_SEEDS + 1)
    ]
    _discard(results)
    return results


def _discard(results: Sequence[Result]) -> None:
    """Delete the cached progress of finished runs, which a check does not save."""
    for result in results:
        if result.checkpoint:
            result.checkpoint.discard()


def _comparable(
    results: list[Result], whole: Dataset, limited: bool, protocol: str, report: RegressionReport
) -> list[Result]:
    """Return the results with the current protocol and pixels; add the others to the report as refused."""
    if limited:
        for _ in whole.batches(64):
            pass  # reads all images to hash them: the committed hash covers all of them
    comparable = []
    for result in results:
        provenance = result.provenance
        own, pixels = provenance["protocol"], provenance["data"]["sha256"]
        if own["sha256"] != protocol:
            reason = f"protocol {own['name']} was {own['sha256'][:12]}, now {protocol[:12]}"
            report.skipped.append(Skipped(result.adapter, result.group, "all", reason, "refused"))
        elif limited and pixels != whole.sha256:
            reason = other_pixels(pixels, whole.sha256, whole.unreadable)
            report.skipped.append(Skipped(result.adapter, result.group, "all", reason, "refused"))
        elif reference := provenance.get("reference"):
            reason = f"compared with the statistics file {reference['file']}, which the check does not read"
            report.skipped.append(Skipped(result.adapter, result.group, "all", reason, "absent"))
        else:
            comparable.append(result)
    return comparable


def _load(
    results: list[Result],
    device: str,
    root: Path | None,
    allow_download: bool,
    report: RegressionReport,
    config: CheckConfig,
) -> list[tuple[Result, LoadedAdapter]]:
    """Return each result with its loaded adapter; add those that cannot be loaded to the report.

    Missing weights are reported as missing, missing adapters as lost, errors while loading as failed.
    """
    found = []
    for result in results:
        try:
            source = config.sources.get(result.adapter) or result.provenance["adapter"].get("source", result.adapter)
            reading = config.reading.recorded(result.provenance)
            found.append((result, load_adapter(source, device, root, allow_download, reading)))
        except AdapterError as error:
            report.skipped.append(Skipped(result.adapter, result.group, "all", str(error), "failed"))
        except NoAdapter as error:
            reason = f"{error}; restore it, or delete {result.path} if it was removed on purpose"
            report.skipped.append(Skipped(result.adapter, result.group, "all", reason, "lost"))
        except TokbenchError as error:
            report.skipped.append(Skipped(result.adapter, result.group, "all", str(error)))
    return found
