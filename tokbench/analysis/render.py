"""Output of comparisons and regression checks: Markdown, JSON, JUnit XML and GitHub annotations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from tokbench.analysis.compare import Difference
from tokbench.analysis.regression_report import Check, Kind, RegressionReport, Skipped
from tokbench.results.columns import column_of
from tokbench.results.markdown import table

SHOWN = 3
"""Number of images named for a changed number."""


def number_text(number: str, value: float | None, extra: int = 2) -> str:
    """Return a value with `extra` more digits than its column shows, because differences are small."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,.{column_of(number)[1].digits + extra}f}"


def gap_text(found: Difference) -> str:
    """Return a difference with its interval as text."""
    if found.gap == 0 or math.isnan(found.gap):
        return "0" if found.gap == 0 else "-"
    digits = column_of(found.number)[1].digits + 1
    small = abs(found.gap) < 10.0**-digits
    gap, low, high = (f"{x:+.2g}" if small else f"{x:+,.{digits}f}" for x in (found.gap, found.low, found.high))
    return gap if math.isnan(found.low) else f"{gap} [{low}, {high}]"


def moved_text(found: Difference) -> str:
    """Return the images with the largest differences, each with its own difference."""
    some = ", ".join(f"{name} {gap:+.3g}" for name, gap in found.moved[:SHOWN])
    if some and found.moved_in != found.number:
        some += f" (in {found.moved_in})"
    alone = f"{found.alone} images have a value in one result only" if found.alone else ""
    return "; ".join(part for part in (some, alone) if part)


def comparison(found: Sequence[Difference], first: str, second: str) -> str:
    """Return a Markdown table of the differences of two results."""
    rows = [
        [
            column_of(one.number)[1].title,
            number_text(one.number, one.first),
            number_text(one.number, one.second),
            gap_text(one),
            f"{one.n:,}" + (f" (+{one.alone} in one only)" if one.alone else ""),
            one.verdict,
            "-" if one.images_needed is None else f"{one.images_needed:,}",
        ]
        for one in found
    ]
    head = ["number", first, second, "difference [95 %]", "n", f"{second} is", "images needed"]
    return table(head, rows, left=(0, 5))


def check_table(report: RegressionReport, *, all_rows: bool = False) -> str:
    """Return a Markdown table of changed numbers (with `all_rows` of all), the skipped ones, and a summary."""
    shown = [check for check in report.checks if all_rows or check.outcome != "same"]
    parts = []
    if shown:
        rows = [
            [
                check.adapter,
                check.group,
                column_of(check.number)[1].title,
                number_text(check.number, check.difference.first),
                number_text(check.number, check.difference.second),
                gap_text(check.difference),
                check.outcome,
                moved_text(check.difference),
            ]
            for check in shown
        ]
        head = ["adapter", "result", "number", "committed", "now", "difference [95 %]", "outcome", "moved most"]
        parts.append(table(head, rows, left=(0, 1, 2, 6, 7)))
    if new := sorted({f"{check.adapter}/{check.group}" for check in report.checks if check.new_weights}):
        parts.append(f"compared with new weights: {', '.join(new)}\n")
    parts += [f"{line}\n" for line in skipped_lines(report.skipped)]
    return "\n".join([*parts, summary(report)])


def skipped_lines(skipped: Sequence[Skipped]) -> list[str]:
    """Return one line per reason, with the results that it applies to."""
    by_reason: dict[tuple[Kind, str, str], list[str]] = {}
    for skip in skipped:
        by_reason.setdefault((skip.kind, skip.what, skip.reason), []).append(f"{skip.adapter}/{skip.group}")
    return [
        f"not compared: {'' if kind == 'absent' else kind.upper() + ' '}{'' if what == 'all' else what + ' of '}"
        f"{', '.join(names)}: {' '.join(reason.splitlines())}"
        for (kind, what, reason), names in by_reason.items()
    ]


def summary(report: RegressionReport) -> str:
    """Return one sentence that counts the numbers by outcome, and the skipped entries by kind."""
    counts = report.counts
    outcomes = ", ".join(f"{counts[outcome]} {outcome}" for outcome in _OUTCOMES if counts[outcome])
    skipped = ", ".join(f"{counts[kind]} {label}" for kind, label in _KINDS.items() if counts[kind])
    results = len({(check.adapter, check.group) for check in report.checks})
    compared = f"{len(report.checks)} numbers of {results} results compared: {outcomes}"
    if not report.checks:
        compared = "nothing could be compared"
    return f"{compared}{f'; {skipped}' if skipped else ''}\n"


_OUTCOMES = ("regression", "allowed drop", "changed", "better", "within noise", "same")
_KINDS: dict[Kind, str] = {
    "lost": "lost", "missing": "missing", "failed": "failed", "refused": "refused", "absent": "not compared",
}  # fmt: skip


def check_facts(report: RegressionReport) -> dict[str, Any]:
    """Return the report as a JSON object."""
    return {
        "exit_status": report.exit_status,
        "counts": report.counts,
        "checks": [
            {"adapter": check.adapter, "result": check.group, "outcome": check.outcome}
            | check.difference.to_dict()
            | {"tolerance": vars(check.tolerance), "redrawn": check.redrawn, "new_weights": check.new_weights}
            | {"moved": dict(check.difference.moved[:SHOWN])}
            for check in report.checks
        ],
        "not_compared": [vars(skip) for skip in report.skipped],
    }


def junit(report: RegressionReport) -> str:
    """Return JUnit XML with a test suite per result and a test case per number.

    Regressions, lost and missing numbers are failures, failed and refused entries are errors, absent ones are skipped.
    """
    suites = ElementTree.Element("testsuites", name="tokbench check")
    by_result: dict[tuple[str, str], ElementTree.Element] = {}

    def suite(adapter: str, group: str) -> ElementTree.Element:
        if (adapter, group) not in by_result:
            by_result[adapter, group] = ElementTree.SubElement(suites, "testsuite", name=f"{adapter}/{group}")
        return by_result[adapter, group]

    for check in report.checks:
        case = ElementTree.SubElement(
            suite(check.adapter, check.group), "testcase", classname=f"{check.adapter}.{check.group}", name=check.number
        )
        if check.outcome == "regression":
            ElementTree.SubElement(case, "failure", message=_sentence(check)).text = moved_text(check.difference)
    for skip in report.skipped:
        case = ElementTree.SubElement(
            suite(skip.adapter, skip.group), "testcase", classname=f"{skip.adapter}.{skip.group}", name=skip.what
        )
        ElementTree.SubElement(case, _TAGS[skip.kind], message=skip.reason)
    for element, cases in [(suites, "testsuite/testcase"), *((one, "testcase") for one in by_result.values())]:
        for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            element.set(attribute, str(len(element.findall(f"{cases}/{tag}"))))
        element.set("tests", str(len(element.findall(cases))))
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


_TAGS: dict[Kind, str] = {
    "absent": "skipped", "missing": "failure", "refused": "error", "failed": "error", "lost": "failure",
}  # fmt: skip


def workflow_commands(report: RegressionReport) -> list[str]:
    """Return GitHub workflow commands: warnings for absent entries, errors for all other problems."""
    lines = [f"::error title=tokbench {check.adapter}::{_escape(_sentence(check))}" for check in report.regressions]
    for skip in report.skipped:
        level = "warning" if skip.kind == "absent" else "error"
        lines.append(f"::{level} title=tokbench {skip.adapter}::{_escape(f'{skip.group}, {skip.what}: {skip.reason}')}")
    return lines


def _sentence(check: Check) -> str:
    found = check.difference
    moved = moved_text(found)
    return (
        f"{check.adapter}, {check.group}: {column_of(check.number)[1].title} was "
        f"{number_text(check.number, found.first)}, is {number_text(check.number, found.second)} ({gap_text(found)})"
        + (f"; {moved}" if moved else "")
    )


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
