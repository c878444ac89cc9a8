"""The regression check: committed facts measured again, number by number, with tolerances and paired noise."""

from __future__ import annotations

import math
import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tokbench.bootstrap import of_mean
from tokbench.cells import of_one, plain
from tokbench.compare import Difference, difference, made_alike, per_image_pairs
from tokbench.dataset import Dataset, open_dataset
from tokbench.errors import AdapterError, TokbenchError, UsageError
from tokbench.evaluate import Progress, evaluate
from tokbench.halves import INFINITY
from tokbench.leaderboard import column_of
from tokbench.metrics import METRICS, metric_of
from tokbench.plugins import Loaded, load_adapter
from tokbench.protocol import load_protocol
from tokbench.readers import Networks
from tokbench.result import Result
from tokbench.slots import Slots
from tokbench.sources import is_path
from tokbench.tasks import task_of

SETTINGS = "tokbench.toml"


@dataclass(frozen=True)
class Tolerance:
    """Differences up to `absolute` or up to `relative` times the committed value are none."""

    absolute: float = 0.0
    relative: float = 0.0

    def holds(self, gap: float, value: float) -> bool:
        """Whether a gap is within it; a gap of NaN is not."""
        return abs(gap) <= max(self.absolute, self.relative * abs(value))


# What another CPU, thread count or minor library version may move a number by: float32 networks agree to about 1e-6
# relative, and a distance between near sets is a small difference of large traces.
TOLERANCES: dict[str, Tolerance] = {
    "psnr": Tolerance(absolute=1e-3),
    "exact": Tolerance(),
    "ssim": Tolerance(absolute=1e-5),
    "ms_ssim": Tolerance(absolute=1e-5),
    "lpips": Tolerance(absolute=1e-5),
    "lpips_vgg": Tolerance(absolute=1e-5),
    **{name: Tolerance(absolute=1e-5, relative=1e-4) for name, entry in METRICS.items() if "frechet" in entry.path},
    "kid": Tolerance(absolute=2e-6),
    "kid_768": Tolerance(absolute=2e-6),
    "inception_score": Tolerance(relative=1e-4),
    "codebook_usage": Tolerance(absolute=1e-4),
    "perplexity": Tolerance(relative=1e-3),
    "codebook_entropy": Tolerance(absolute=1e-3),
    # One code in some thousands may fall on the other side of a boundary, and a pair of codes be merged sooner.
    "order0_bits_per_image": Tolerance(relative=1e-3),
    "bpe_bits_per_image": Tolerance(relative=5e-3),
    "bpe_tokens_per_image": Tolerance(relative=5e-3),
    "order0_model_bytes": Tolerance(relative=1e-2),
    "bpe_model_bytes": Tolerance(relative=1e-2),
    # Shares: so much is one sample in some hundreds.
    **{
        number: Tolerance(absolute=2e-3)
        for entry in METRICS.values()
        if entry.path.startswith("precision_recall")
        for number in entry.numbers
    },
    "tokens_per_image": Tolerance(),
    "bits_per_image": Tolerance(relative=1e-4),
    "bpp": Tolerance(relative=1e-4),
    "compression_ratio": Tolerance(relative=1e-4),
}

Outcome = Literal["same", "within noise", "better", "regression"]


@dataclass(frozen=True)
class Check:
    """One number of one committed result, and what became of it. A `better` is no regression, and not the same."""

    adapter: str
    group: str
    difference: Difference
    tolerance: Tolerance
    outcome: Outcome

    @property
    def number(self) -> str:
        return self.difference.number


@dataclass(frozen=True)
class Skipped:
    """What was not compared and why: something is not here; hashes differ, so that a comparison would mean nothing; or
    the measurement failed."""

    adapter: str
    group: str
    what: str
    reason: str
    kind: Literal["absent", "refused", "failed"] = "absent"


@dataclass
class Report:
    """All that a check found."""

    checks: list[Check] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def regressions(self) -> list[Check]:
        return [check for check in self.checks if check.outcome == "regression"]

    @property
    def exit_status(self) -> int:
        """1 for a regression or a failure; 3 where nothing could be compared or hashes differ; else 0."""
        kinds = {skip.kind for skip in self.skipped}
        if self.regressions or "failed" in kinds:
            return 1
        return 3 if not self.checks or "refused" in kinds else 0


def read_tolerances(path: Path | None) -> dict[str, Tolerance]:
    """The default tolerances, changed as `[check.tolerance]` of a tokbench.toml says: `psnr = 0.01`, `rfid = "1%"`.

    Raises UsageError for an unknown number or a value that is neither.
    """
    if path is None:
        return TOLERANCES
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error})") from error
    section = told.get("check", {})
    asked = section.get("tolerance", {}) if isinstance(section, dict) else None
    if not isinstance(asked, dict):
        raise UsageError(f"{path}: tolerances are a table, [check.tolerance]")
    if unknown := sorted(set(asked) - set(TOLERANCES)):
        raise UsageError(f"{path}: no number '{', '.join(unknown)}'; there are {', '.join(TOLERANCES)}")
    return TOLERANCES | {number: _tolerance(path, number, value) for number, value in asked.items()}


def _tolerance(path: Path, number: str, value: Any) -> Tolerance:
    try:
        if isinstance(value, str) and value.endswith("%"):
            made = Tolerance(relative=float(value[:-1]) / 100)
        else:
            made = Tolerance(absolute=float(value))
    except (TypeError, ValueError) as error:
        raise UsageError(f'{path}: {number} = {value!r}; give a number, or a share such as "1%"') from error
    if not (0 <= made.absolute < math.inf and 0 <= made.relative < math.inf):
        raise UsageError(f"{path}: {number} = {value!r}; a tolerance is not negative")
    return made


def check(
    committed: Sequence[Result],
    *,
    data: str | None = None,
    split: str | None = None,
    root: Path | None = None,
    limit: int | None = None,
    tolerances: Mapping[str, Tolerance] = TOLERANCES,
    networks: Networks | None = None,
    allow_download: bool = False,
    batch_size: int = 16,
    progress: Progress = lambda what, done, total: None,
) -> Report:
    """Measure every committed result again (its first `limit` images) and compare number by number.

    `data` is a path for results on images that have no name of their own, `split` the one of it that they are of.
    """
    report, networks = Report(), networks or Networks(allow_download=allow_download)
    passes: dict[tuple[Any, ...], list[Result]] = defaultdict(list)
    for result in committed:
        told = result.provenance
        asked = told["data"]["width"] if told["data"]["width"] == told["data"]["height"] else None
        key = result.dataset, asked, told["data"]["limit"], told["protocol"]["name"], told["seed"], result.task
        passes[key].append(result)
    for (dataset, size, count, protocol, seed, task), results in passes.items():
        try:
            doing = task_of(task)
            rules = load_protocol(protocol)
            if limit and not doing.paired:
                raise UsageError("samples have no per-image numbers; check them without --limit")
            whole = open_dataset(_place(dataset, data), rules, size, count if doing.paired else None, root, split=split)
            if whole.name != dataset:
                raise UsageError(f"{data} is not {dataset}, on which these results were measured")
        except TokbenchError as error:
            report.skipped += [Skipped(result.adapter, result.group, "all", str(error)) for result in results]
            continue
        some: Dataset | Slots = whole
        if limit:
            some = open_dataset(_place(dataset, data), rules, size, _least(count, limit), root, split=split)
        elif not doing.paired:
            some = Slots(whole.name, rules, count or len(whole), whole)
        limited = doing.paired and len(some) < len(whole)
        kept = _unlike(results, whole, limited, rules.sha256, report)
        adapters = _load(kept, networks.device, root, allow_download, report)
        if not adapters:
            continue
        wanted = {
            metric_of(number)
            for result, _ in adapters
            for number in result.metrics
            if not limited or of_mean(number, result.per_image)
        }
        names = [name for name in METRICS if name in wanted and name not in ("cost", "speed")]
        try:
            found = evaluate(
                [loaded for _, loaded in adapters],
                some,
                names,
                task=doing,
                networks=networks,
                batch_size=batch_size,
                seed=seed,
                progress=progress,
            )
        except TokbenchError as error:  # not one image could be read
            report.skipped += [Skipped(one.adapter, one.group, "all", str(error), "failed") for one, _ in adapters]
            continue
        for (result, _), made in zip(adapters, found, strict=True):
            if made.error:
                report.skipped.append(Skipped(result.adapter, result.group, "all", made.error, "failed"))
            else:
                _compare(result, made, limited, tolerances, report)
    return report


def _place(dataset: str, data: str | None) -> str:
    return data if data is not None and is_path(data) else dataset


def _least(count: int | None, limit: int | None) -> int | None:
    return min(count or limit, limit) if limit else count


def _unlike(results: list[Result], whole: Dataset, limited: bool, protocol: str, report: Report) -> list[Result]:
    """The results whose protocol and pixels are those of today; the others are refused."""
    if limited:
        for _ in whole.batches(64):
            pass  # only read and hashed: the first few images alone have a hash of their own
    kept = []
    for result in results:
        told = result.provenance
        if told["protocol"]["sha256"] != protocol:
            reason = f"protocol {told['protocol']['name']} was {told['protocol']['sha256'][:12]}, now {protocol[:12]}"
            report.skipped.append(Skipped(result.adapter, result.group, "all", reason, "refused"))
        elif limited and told["data"]["sha256"] != whole.sha256:
            reason = _other_pixels(told["data"]["sha256"], whole.sha256, whole.bad)
            report.skipped.append(Skipped(result.adapter, result.group, "all", reason, "refused"))
        elif told.get("reference"):
            reason = f"compared with the statistics file {told['reference']['file']}, which a check does not look for"
            report.skipped.append(Skipped(result.adapter, result.group, "all", reason))
        else:
            kept.append(result)
    return kept


def _other_pixels(before: str, now: str, bad: Sequence[tuple[str, str]]) -> str:
    unreadable = f"; {len(bad)} images cannot be read, such as {bad[0][1]}" if bad else ""
    return f"the images' pixels were {before[:12]}, now {now[:12]}{unreadable}"


def _load(
    results: list[Result], device: str, root: Path | None, allow_download: bool, report: Report
) -> list[tuple[Result, Loaded]]:
    """Each result with its adapter; those that are not here are listed, those that break while loading have failed."""
    found = []
    for result in results:
        try:
            source = result.provenance["adapter"].get("source", result.adapter)
            found.append((result, load_adapter(source, device, root, allow_download)))
        except AdapterError as error:
            report.skipped.append(Skipped(result.adapter, result.group, "all", str(error), "failed"))
        except TokbenchError as error:
            report.skipped.append(Skipped(result.adapter, result.group, "all", str(error)))
    return found


def _compare(
    committed: Result, made: Result, limited: bool, tolerances: Mapping[str, Tolerance], report: Report
) -> None:
    def skip(what: str, reason: str, kind: Literal["absent", "refused"] = "absent") -> None:
        report.skipped.append(Skipped(committed.adapter, committed.group, what, reason, kind))

    for key in ("parameters_sha256", "weights", "fingerprint"):
        ours, theirs = (result.provenance["adapter"].get(key) for result in (committed, made))
        if ours != theirs:
            return skip("all", "the tokenizer's weights are not those of the committed result", "refused")
    before, now = (result.provenance["data"]["sha256"] for result in (committed, made))
    if not limited and before != now:
        bad = [(image["name"], image["reason"]) for image in made.bad_images]
        return skip("all", _other_pixels(before, now, bad), "refused")
    for number in committed.metrics:
        tolerance = tolerances.get(plain(number) or number.partition(".")[0].removesuffix(INFINITY))
        if tolerance is None or of_one(number):
            continue  # a speed: another machine's, another hour's; or one cell of a grid, which its mean holds
        few = f"it depends on all {committed.num_images:,} images, and {made.num_images:,} were measured"
        if limited and of_mean(number, committed.per_image) is None:
            skip(number, few)
        elif number not in made.metrics:
            skip(number, made.skipped.get(metric_of(number) or "", "it was not measured"))
        elif not made_alike(number, committed, made):
            skip(number, "its network, weights or settings are not those of the committed result", "refused")
        elif limited and per_image_pairs(number, committed, made) is None:
            skip(number, few)
        else:
            found = difference(number, committed, made)
            report.checks.append(
                Check(committed.adapter, committed.group, found, tolerance, _outcome(found, tolerance))
            )
    return None


def _outcome(found: Difference, tolerance: Tolerance) -> Outcome:
    if found.second_only:
        return "regression"  # images that were exact no longer are
    if found.first is None or found.second is None:
        return "same" if found.first is found.second and not found.alone else "better" if found.alone else "regression"
    if tolerance.holds(found.gap, found.first):
        return "better" if found.first_only else "same"
    if found.verdict == "no error bar":
        more = column_of(found.number)[1].more
        return "better" if more is not None and (found.gap > 0) == more else "regression"
    outcomes: Mapping[str, Outcome] = {"cannot tell": "within noise", "better": "better"}
    return outcomes.get(found.verdict, "regression")
