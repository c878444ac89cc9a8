"""Replacement of committed results by those that a check has measured."""

from __future__ import annotations

from pathlib import Path

from tokbench.analysis.regression_report import RegressionReport
from tokbench.results.result import Result


def update(report: RegressionReport, folder: Path) -> list[str]:
    """Write the results that a check has measured over the committed ones in `folder`; return a line for each.

    A result is left alone if no number and no weights changed, or if a number is missing on this machine (unless the
    report allows that), because the file would lose it. Results that were refused or failed are left alone too.
    """
    lines = []
    for committed, now in report.measured:
        missing = _skipped(report, committed, "missing")
        if not _changed(report, committed):
            continue
        if now.path != committed.path:
            lines.append(f"not updated: {committed.path}, because it would now be {now.path}")
        elif missing:
            what = f"{', '.join(missing)} could not be measured here"
            lines.append(f"not updated: {committed.path}, because {what}; --allow-missing updates it")
        else:
            path, replaced = now.save(folder)
            lines.append(f"updated {path}{f': {replaced}' if replaced else ''}")
    return lines


def _changed(report: RegressionReport, result: Result) -> bool:
    checks = [check for check in report.checks if (check.adapter, check.group) == (result.adapter, result.group)]
    return any(check.outcome != "same" or check.new_weights for check in checks) or bool(
        _skipped(report, result, "lost")
    )


def _skipped(report: RegressionReport, result: Result, kind: str) -> list[str]:
    key = result.adapter, result.group, kind
    return [skip.what for skip in report.skipped if (skip.adapter, skip.group, skip.kind) == key]
