"""The regression check: committed facts measured again, number by number, with tolerances and paired noise."""

from __future__ import annotations

import math
import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tokbench.compare import Difference, difference, made_alike, per_image_pairs
from tokbench.dataset import Dataset, open_dataset
from tokbench.errors import TokbenchError, UsageError
from tokbench.evaluate import Progress, evaluate
from tokbench.halves import INFINITY
from tokbench.metrics import METRICS, metric_of
from tokbench.plugins import load_adapter
from tokbench.protocol import load_protocol
from tokbench.readers import Networks
from tokbench.result import Result

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
    "tokens_per_image": Tolerance(),
    "bits_per_image": Tolerance(relative=1e-4),
    "bpp": Tolerance(relative=1e-4),
    "compression_ratio": Tolerance(relative=1e-4),
    "parameters": Tolerance(),
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
    asked = told.get("check", {}).get("tolerance", {})
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
    root: Path | None = None,
    limit: int | None = None,
    tolerances: Mapping[str, Tolerance] = TOLERANCES,
    networks: Networks | None = None,
    batch_size: int = 16,
    progress: Progress = lambda what, done, total: None,
) -> Report:
    """Measure every committed result again (its first `limit` images) and compare number by number.

    `data` is a path for results on images that have no name of their own.
    """
    report, networks = Report(), networks or Networks()
    passes: dict[tuple[Any, ...], list[Result]] = defaultdict(list)
    for result in committed:
        told = result.provenance
        asked = told["data"]["width"] if told["data"]["width"] == told["data"]["height"] else None
        passes[result.dataset, asked, told["data"]["limit"], told["protocol"]["name"], told["seed"]].append(result)
    for (dataset, size, count, protocol, seed), results in passes.items():
        try:
            rules = load_protocol(protocol)
            whole = open_dataset(_place(dataset, data), rules, size, count, root)
            if whole.name != dataset:
                raise UsageError(f"{data} is not {dataset}, on which these results were measured")
        except TokbenchError as error:
            report.skipped += [Skipped(result.adapter, result.group, "all", str(error)) for result in results]
            continue
        some = open_dataset(_place(dataset, data), rules, size, _least(count, limit), root)
        comparable = _unlike(results, whole, some, rules.sha256, report)
        _again(comparable, some, seed, networks, tolerances, batch_size, root, progress, report)
    return report


def _place(dataset: str, data: str | None) -> str:
    return data if data is not None and Path(data).expanduser().exists() else dataset


def _least(count: int | None, limit: int | None) -> int | None:
    return min(count or limit, limit) if limit else count


def _unlike(results: list[Result], whole: Dataset, some: Dataset, protocol: str, report: Report) -> list[Result]:
    """The results whose protocol and pixels are those of today; the others are refused."""
    if len(some) < len(whole) or len({result.provenance["data"]["sha256"] for result in results}) > 1:
        for _ in whole.batches(64):
            pass  # only read and hashed: the first few images alone have a hash of their own
    kept = []
    for result in results:
        told = result.provenance
        if told["protocol"]["sha256"] != protocol:
            reason = f"protocol {told['protocol']['name']} was {told['protocol']['sha256'][:12]}, now {protocol[:12]}"
            report.skipped.append(Skipped(result.adapter, result.group, "all", reason, "refused"))
        elif whole.shape is not None and told["data"]["sha256"] != whole.sha256:
            reason = f"the images' pixels were {told['data']['sha256'][:12]}, now {whole.sha256[:12]}"
            report.skipped.append(Skipped(result.adapter, result.group, "all", reason, "refused"))
        elif told.get("reference"):
            reason = f"compared with the statistics file {told['reference']['file']}, which a check does not look for"
            report.skipped.append(Skipped(result.adapter, result.group, "all", reason))
        else:
            kept.append(result)
    return kept


def _again(
    results: list[Result],
    dataset: Dataset,
    seed: int,
    networks: Networks,
    tolerances: Mapping[str, Tolerance],
    batch_size: int,
    root: Path | None,
    progress: Progress,
    report: Report,
) -> None:
    """One pass over the images for all results that share it."""
    by_source = {result.provenance["adapter"].get("source", result.adapter): result for result in results}
    loaded = []
    for source, result in by_source.items():
        try:
            loaded.append(load_adapter(source, networks.device, root))
        except TokbenchError as error:
            report.skipped.append(Skipped(result.adapter, result.group, "all", str(error)))
    if not loaded:
        return
    wanted = {metric_of(number) for result in results for number in result.metrics}
    names = [name for name in METRICS if name in wanted and name != "speed"]
    for made in evaluate(
        loaded, dataset, names, networks=networks, batch_size=batch_size, seed=seed, progress=progress
    ):
        result = next(result for result in results if result.adapter == made.adapter)
        if made.error:
            report.skipped.append(Skipped(result.adapter, result.group, "all", made.error, "failed"))
        else:
            _compare(result, made, tolerances, report)


def _compare(committed: Result, made: Result, tolerances: Mapping[str, Tolerance], report: Report) -> None:
    def skip(what: str, reason: str, kind: Literal["absent", "refused"] = "absent") -> None:
        report.skipped.append(Skipped(committed.adapter, committed.group, what, reason, kind))

    for key in ("parameters_sha256", "weights", "fingerprint"):
        ours, theirs = (result.provenance["adapter"].get(key) for result in (committed, made))
        if ours != theirs:
            return skip("all", "the tokenizer's weights are not those of the committed result", "refused")
    whole = committed.provenance["data"]["sha256"] == made.provenance["data"]["sha256"]
    if not whole and made.num_images >= committed.num_images:
        return skip("all", "the images' pixels are not those of the committed result", "refused")
    for number in committed.metrics:
        tolerance = tolerances.get(number.partition(".")[0].removesuffix(INFINITY))
        if tolerance is None:
            continue  # a speed: another machine's, another hour's
        if number not in made.metrics:
            skip(number, made.skipped.get(metric_of(number) or "", "it was not measured"))
        elif not made_alike(number, committed, made):
            skip(number, "its network, weights or settings are not those of the committed result", "refused")
        elif not whole and per_image_pairs(number, committed, made) is None:
            skip(number, f"it depends on all {committed.num_images:,} images, and {made.num_images:,} were measured")
        else:
            found = difference(number, committed, made)
            report.checks.append(
                Check(committed.adapter, committed.group, found, tolerance, _outcome(found, tolerance))
            )
    return None


def _outcome(found: Difference, tolerance: Tolerance) -> Outcome:
    if found.alone or (found.first is None) != (found.second is None):
        return "regression"  # images that were exact no longer are, or the other way round
    if found.first is None:
        return "same"
    if tolerance.holds(found.gap, found.first):
        return "same"
    outcomes: Mapping[str, Outcome] = {"cannot tell": "within noise", "better": "better"}
    return outcomes.get(found.verdict, "regression")
