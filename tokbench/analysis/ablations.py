"""Ablated twins: what a paper claims of a part, and what two trainings that differ in that part alone say of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokbench.analysis.compare import Difference, difference, refuse_unlike, same_settings
from tokbench.errors import AdapterError
from tokbench.results.columns import column_of
from tokbench.results.result import Result
from tokbench.tokenizers.registry import read_variant

Verdict = Literal["supported", "not supported", "cannot tell"]

_VERDICTS: dict[str, Verdict] = {"worse": "supported", "better": "not supported"}
"""Of the claim, by what became of the number when the part was taken out."""


@dataclass(frozen=True)
class Ablation:
    """`twin` is the adapter `of` without a part; the `claim` is that the part makes `numbers` better in `tasks`.

    margin: of a part that is to save work; then the claim is that it makes them worse by no more than this share.
    """

    twin: str
    of: str
    without: str
    claim: str
    numbers: tuple[str, ...]
    tasks: tuple[str, ...]
    margin: float | None = None


@dataclass(frozen=True)
class Finding:
    """One number of an ablation, measured on the same images: the twin's less the adapter's, with a paired interval
    over images. It says nothing of other seeds."""

    ablation: Ablation
    group: str
    difference: Difference

    @property
    def verdict(self) -> Verdict:
        gap, margin = self.difference, self.ablation.margin
        if margin is None:
            return _VERDICTS.get(gap.verdict, "cannot tell")
        more = column_of(gap.number)[1].more
        if more is None or gap.second is None or math.isnan(gap.low):
            return "cannot tell"
        # What the part costs: how much worse the adapter is than its twin.
        least, most = (gap.low, gap.high) if more else (-gap.high, -gap.low)
        allowed = margin * abs(gap.second)
        return "supported" if most <= allowed else "not supported" if least > allowed else "cannot tell"


def ablations(files: dict[str, Path]) -> list[Ablation]:
    """Every ablation that variant files (by adapter name) tell of. Raises AdapterError where a table is incomplete."""
    return [_read(name, table) for name, toml in files.items() if (table := read_variant(toml).get("ablation"))]


def _read(name: str, table: dict[str, Any]) -> Ablation:
    try:
        return Ablation(
            name, table["of"], table["without"], table["claim"], tuple(table["numbers"]), tuple(table["tasks"]),
            table.get("margin"),
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise AdapterError(f"{name}: [ablation] must give of, without, claim, numbers and tasks") from error


def findings(told: Iterable[Ablation], results: Iterable[Result]) -> list[Finding]:
    """What results say of ablations: one for each number and group of results in which both twins have it."""
    by_name: dict[str, dict[str, Result]] = {}
    for result in results:
        by_name.setdefault(result.adapter, {})[result.group] = result
    found = []
    for ablation in told:
        whole, twin = (by_name.get(name, {}) for name in (ablation.of, ablation.twin))
        for group in sorted(whole.keys() & twin.keys()):
            first, second = whole[group], twin[group]
            if first.task not in ablation.tasks:
                continue
            refuse_unlike(first, second)
            for number in ablation.numbers:
                if number in first.metrics and number in second.metrics and same_settings(number, first, second):
                    found.append(Finding(ablation, group, difference(number, first, second)))
    return found
