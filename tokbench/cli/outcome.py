"""The lines on stderr after an evaluation: warnings, skipped metrics, unreadable images and failures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokbench.cli.options import say

if TYPE_CHECKING:
    from tokbench.results.result import Result

Key = tuple[str, str]
"""An adapter and a task; the pair identifies one result on a dataset."""


def label(key: Key) -> str:
    """Return the name of a result: that of its adapter, and the task if it is not `reconstruct`."""
    name, task = key
    return name if task == "reconstruct" else f"{name} ({task})"


def report(
    results: Sequence[Result],
    bad: Sequence[tuple[str, str]],
    failed: dict[Key, str],
    *,
    warnings: bool,
    in_detail: bool,
    allow_download: bool,
) -> None:
    """Print the outcome to stderr; equal reasons are printed once.

    bad: name and reason of each unreadable image. failed: reason by result. warnings: whether the warnings of results
    are printed. in_detail: whether each metric whose weights are missing has a line with the files and their source,
    because it was requested by name; otherwise all of them share one line. allow_download: whether the command was
    allowed to download weights.
    """
    for result in results:
        for warning in result.warnings if warnings else ():
            say(f"warning {label((result.adapter, result.task))}: {warning.text}")
    skipped: dict[tuple[str, str], list[str]] = {}
    lacking: dict[str, None] = {}
    for result in results:
        for metric, reason in result.notes.items():
            if metric in result.lacking and not in_detail:
                lacking[metric] = None
            else:
                skipped.setdefault((metric, reason), []).append(label((result.adapter, result.task)))
    for (metric, reason), names in skipped.items():
        suffix = "" if len(names) == len(results) else f" for {', '.join(names)}"
        say(f"skipped {metric}{suffix}: {reason}")
    for name, reason in bad:
        say(f"unreadable image {name}: {reason.removeprefix(f'{name}: ')}")
    for key, reason in failed.items():
        say(f"failed {label(key)}: {reason.removeprefix(f'{key[0]}: ')}")
    if lacking:
        remedy = "see tokbench weights" if allow_download else "add --allow-download, or see tokbench weights"
        say(f"{', '.join(lacking)}: weights missing; {remedy}")
