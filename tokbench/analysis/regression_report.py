"""The outcome of a regression check: compared numbers, what was not compared, and the exit status."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from tokbench.analysis.compare import Difference
from tokbench.metric_names import Tolerance
from tokbench.results.result import Result

Outcome = Literal["same", "within noise", "allowed drop", "changed", "better", "regression"]

Kind = Literal["absent", "missing", "refused", "lost", "failed"]


@dataclass(frozen=True)
class Check:
    """The comparison of one number of one committed result with its new value."""

    adapter: str
    group: str
    difference: Difference
    tolerance: Tolerance
    outcome: Outcome
    redrawn: bool = False
    """Whether the decoder sampled different noise, so that differences of this size between seeds count as noise."""

    new_weights: bool = False
    """Whether the tokenizer has other weights than in the committed result."""

    @property
    def number(self) -> str:
        return self.difference.number


@dataclass(frozen=True)
class Skipped:
    """Something that was not compared, and the reason.

    kind: `missing` if data, weights or packages are missing on this machine; `absent` if missing entries are allowed,
    or if the number cannot be compared (with `--limit`); `refused` if hashes differ, so that a comparison would be
    meaningless; `lost` if a committed number or its adapter no longer exists; `failed` if the measurement failed.
    """

    adapter: str
    group: str
    what: str
    reason: str
    kind: Kind = "missing"


@dataclass
class RegressionReport:
    """The outcome of a regression check. measured: (committed result, new result) of every compared result."""

    checks: list[Check] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    measured: list[tuple[Result, Result]] = field(default_factory=list)

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
        """1 for a regression, a lost or missing number or a failure; else 3 if none was compared or hashes differ."""
        counts = self.counts
        if counts["regression"] or counts["lost"] or counts["missing"] or counts["failed"]:
            return 1
        return 3 if not self.checks or counts["refused"] else 0

    def allow_missing(self) -> None:
        """Turn missing entries into absent ones, which are no failure."""
        self.skipped = [replace(skip, kind="absent") if skip.kind == "missing" else skip for skip in self.skipped]
