"""The regression check: committed results measured again and compared number by number.

Images, weights and seed are the same as in the committed result, so a deterministic decoder reproduces the images. A
difference larger than the tolerance is then a real change, however few images caused it, and a confidence interval over
images does not apply. There is one exception: if the decoder samples noise and the device kind differs, the noise is
different too, and a difference whose paired interval over images contains 0 counts as noise.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from tokbench.analysis.compare import Difference, difference, per_image_pairs, same_settings
from tokbench.analysis.tolerances import tolerance_of
from tokbench.data.dataset import Dataset, open_dataset
from tokbench.data.reading import DEFAULTS, ReadOptions
from tokbench.data.sources.patterns import is_path
from tokbench.data.stream import ImageStream
from tokbench.errors import AdapterError, NoAdapter, TokbenchError, UsageError
from tokbench.evaluation.config import Context, EvalConfig
from tokbench.evaluation.evaluate import evaluate
from tokbench.evaluation.metric_set import format_error
from tokbench.evaluation.randomness import draws_noise
from tokbench.evaluation.sample_plan import SamplePlan
from tokbench.evaluation.tasks import parse_task
from tokbench.extractors.pool import ExtractorPool
from tokbench.metric_names import METRICS, MetricName, Tolerance
from tokbench.protocol.protocol import load_protocol
from tokbench.results.columns import column_of
from tokbench.results.result import Result
from tokbench.stats.bootstrap import mean_statistic
from tokbench.tokenizers.registry import LoadedAdapter, load_adapter

Outcome = Literal["same", "within noise", "better", "regression"]

Kind = Literal["absent", "refused", "lost", "failed"]


@dataclass(frozen=True)
class Check:
    """The comparison of one number of one committed result with its new value."""

    adapter: str
    group: str
    difference: Difference
    tolerance: Tolerance
    outcome: Outcome
    redrawn: bool = False
    """Whether the decoder sampled different noise, so that the paired interval was taken into account."""

    @property
    def number(self) -> str:
        return self.difference.number


@dataclass(frozen=True)
class Skipped:
    """Something that was not compared, and the reason.

    kind: `absent` if data, weights or packages are missing on this machine; `refused` if hashes differ, so that a
    comparison would be meaningless; `lost` if a committed number or its adapter no longer exists; `failed` if the
    measurement failed.
    """

    adapter: str
    group: str
    what: str
    reason: str
    kind: Kind = "absent"


@dataclass
class RegressionReport:
    """The outcome of a regression check."""

    checks: list[Check] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def regressions(self) -> list[Check]:
        return [check for check in self.checks if check.outcome == "regression"]

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of checks by outcome and of skipped entries by kind."""
        found = Counter([check.outcome for check in self.checks]) + Counter([skip.kind for skip in self.skipped])
        return {name: found[name] for name in (*get_args(Outcome), *get_args(Kind))}

    @property
    def exit_status(self) -> int:
        """1 for a regression, a lost number or a failure; else 3 if nothing was compared or hashes differ; else 0."""
        counts = self.counts
        if counts["regression"] or counts["lost"] or counts["failed"]:
            return 1
        return 3 if not self.checks or counts["refused"] else 0


@dataclass(frozen=True)
class CheckConfig:
    """What a check measures, and what it accepts.

    data: the path of the images, for results on images that are not a named dataset. reading: how its images are found;
    sampling and pairing are those that a result records. root: the folder with adapters and datasets. limit: use only
    the first images. tolerances: by metric; None for the default ones. batch_size: images per forward pass. sources: by
    name of the adapter, the argument that loads it now, where its checkpoint has moved.
    """

    data: str | None = None
    reading: ReadOptions = DEFAULTS
    root: Path | None = None
    limit: int | None = None
    tolerances: Mapping[str, Tolerance] | None = None
    batch_size: int = 16
    sources: Mapping[str, str] = field(default_factory=dict)

    def place(self, dataset: str) -> str:
        """Return the name or path with which a dataset is opened."""
        return self.data if self.data is not None and is_path(self.data) else dataset


def check(
    committed: Sequence[Result], config: CheckConfig | None = None, context: Context | None = None
) -> RegressionReport:
    """Measure every committed result again and compare it number by number.

    context: only its networks, allow_download and progress are used. Returns a report that also lists what could not be
    compared.
    """
    config, context, report = config or CheckConfig(), context or Context(), RegressionReport()
    networks = context.networks or ExtractorPool(allow_download=context.allow_download)
    passes: dict[tuple[Any, ...], list[Result]] = defaultdict(list)
    for result in committed:
        provenance = result.provenance
        data = provenance["data"]
        size = data["width"] if data["width"] == data["height"] else None
        selected = result.dataset, size, data["limit"], data.get("sampling", "first")
        key = *selected, provenance["protocol"]["name"], provenance["seed"], result.task
        passes[key].append(result)
    for (dataset, size, count, _, protocol_name, seed, task_name), results in passes.items():
        try:
            task, protocol = parse_task(task_name), load_protocol(protocol_name)
            if config.limit and not task.paired:
                raise UsageError("generated samples have no per-image values; check them without --limit")
            reading = config.reading.recorded(results[0].provenance)
            place, count_read = config.place(dataset), count if task.paired else None
            whole = open_dataset(place, protocol, size, count_read, config.root, reading)
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
            settings = EvalConfig(tuple(names), task, config.batch_size, seed, networks.device, networks.precision)
            run = Context(networks=networks, progress=context.progress)
            repeated = evaluate([loaded for _, loaded in adapters], images, settings, run)
        except TokbenchError as error:  # no image could be read
            report.skipped += [Skipped(one.adapter, one.group, "all", str(error), "failed") for one, _ in adapters]
            continue
        for (result, loaded), now in zip(adapters, repeated, strict=True):
            if now.error:
                report.skipped.append(Skipped(result.adapter, result.group, "all", now.error, "failed"))
                continue
            redrawn = False
            if result.provenance["device"] != now.provenance["device"]:
                try:
                    redrawn = draws_noise(loaded.model, task, images, networks.device, seed)
                except Exception as error:  # third-party code may raise anything
                    report.skipped.append(Skipped(result.adapter, result.group, "all", format_error(error), "failed"))
                    continue
            _compare(result, now, limited, config.tolerances, report, redrawn)
    return report


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
            reason = _other_pixels(pixels, whole.sha256, whole.unreadable)
            report.skipped.append(Skipped(result.adapter, result.group, "all", reason, "refused"))
        elif reference := provenance.get("reference"):
            reason = f"compared with the statistics file {reference['file']}, which the check does not read"
            report.skipped.append(Skipped(result.adapter, result.group, "all", reason))
        else:
            comparable.append(result)
    return comparable


def _other_pixels(before: str, now: str, bad: Sequence[tuple[str, str]]) -> str:
    unreadable = f"; {len(bad)} images cannot be read, such as {bad[0][1]}" if bad else ""
    return f"the images' pixels were {before[:12]}, now {now[:12]}{unreadable}"


def _load(
    results: list[Result],
    device: str,
    root: Path | None,
    allow_download: bool,
    report: RegressionReport,
    config: CheckConfig,
) -> list[tuple[Result, LoadedAdapter]]:
    """Return each result with its loaded adapter; add those that cannot be loaded to the report.

    Missing weights are reported as absent, missing adapters as lost, errors while loading as failed.
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


def _compare(
    committed: Result,
    now: Result,
    limited: bool,
    tolerances: Mapping[str, Tolerance] | None,
    report: RegressionReport,
    redrawn: bool,
) -> None:
    def skip(what: str, reason: str, kind: Kind = "absent") -> None:
        report.skipped.append(Skipped(committed.adapter, committed.group, what, reason, kind))

    for key in ("parameters_sha256", "weights", "fingerprint"):
        ours, theirs = (result.provenance["adapter"].get(key) for result in (committed, now))
        if ours != theirs:
            return skip("all", "the tokenizer's weights differ from those of the committed result", "refused")
    for key in ("config_sha256", "other_parameters_sha256"):  # older results do not record them
        ours, theirs = (result.provenance["adapter"].get(key) for result in (committed, now))
        if ours not in (None, theirs):
            what = "configuration differs" if key == "config_sha256" else "weights outside its module differ"
            return skip("all", f"the tokenizer's {what} from the committed result", "refused")
    ours, theirs = (result.provenance["data"]["sha256"] for result in (committed, now))
    if not limited and ours != theirs:
        bad = [(image["name"], image["reason"]) for image in now.bad_images]
        return skip("all", _other_pixels(ours, theirs, bad), "refused")
    for number in committed.metrics:
        name = MetricName.parse(number)
        spec = name.spec
        if name.is_part or (spec is not None and spec.timed):
            continue  # speeds depend on the machine; parts of a number are compared as a whole
        tolerance = tolerance_of(number, tolerances)
        if spec is None or tolerance is None:
            package = committed.provenance["metrics"].get(number, {}).get("package")
            absent = f"package {package}, which computes it, is not installed here or cannot be loaded"
            skip(number, absent if package else "this version of tokbench does not compute it")
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
        else:
            found = difference(number, committed, now)
            outcome = _outcome(found, tolerance, redrawn)
            report.checks.append(Check(committed.adapter, committed.group, found, tolerance, outcome, redrawn))
    return None


def _why_absent(name: MetricName, committed: Result, now: Result, limited: bool) -> tuple[str, Kind]:
    """Return why a committed number was not computed, and the kind of the entry.

    It is absent if this machine lacks something or --limit leaves too few images, or if it is an extrapolation, whose
    availability depends on a threshold (the underlying number is compared). Otherwise it is lost.
    """
    metric = name.metric or ""
    reason = now.skipped.get(metric, f"{now.adapter} no longer has this number")
    few_words = limited and name.spec is not None and name.spec.reader  # the first images may contain no word or face
    if metric in now.lacking or few_words:
        return reason, "absent"
    if name.infinite and name.finite in now.metrics:
        return "these images allow no extrapolation", "absent"
    return _lost(str(name), committed, reason)


def _lost(number: str, committed: Result, reason: str) -> tuple[str, Kind]:
    remedy = f"if that is intended, delete {number} from {committed.path} or measure that result again"
    return f"it was committed and can no longer be computed ({reason}); {remedy}", "lost"


def _codebook(result: Result) -> bool:
    return bool(result.provenance["adapter"].get("codebook"))


def _outcome(found: Difference, tolerance: Tolerance, redrawn: bool = False) -> Outcome:
    """Return the outcome of a number. redrawn: the decoder sampled different noise, so images differ by chance."""
    if found.second_only:
        return "regression"  # images that were exact are no longer exact
    if found.first is None or found.second is None:
        return "same" if found.first is found.second and not found.alone else "better" if found.alone else "regression"
    if tolerance.holds(found.gap, found.first):
        return "better" if found.first_only else "same"
    if redrawn and found.verdict == "cannot tell":
        return "within noise"
    more = column_of(found.number)[1].more
    better = more is not None and (found.gap > 0 if more else found.gap < 0)
    return "better" if better else "regression"
