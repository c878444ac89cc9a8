"""Ablations of pruned networks: the change of a number without a component of their training, paired by image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokbench.analysis.ablations import Ablation, Finding
from tokbench.analysis.compare import Difference, Verdict
from tokbench.pruning.kinds import kind_named
from tokbench.pruning.result import PruningResult, TimedRow
from tokbench.pruning.table import groups, undertrained
from tokbench.pruning.verdicts import verdict_of
from tokbench.results.columns import Column

COLUMNS = {name: Column(name, title, 4, True) for name, title in (("ap50", "AP50"), ("ap", "AP"))} | {
    "mpjpe": Column("mpjpe", "MPJPE", 1, False, "mm")
}
"""Columns of numbers that no metric measures."""

_COMPARED: dict[str, Verdict] = {"holds": "better", "does not hold": "worse"}


def pruning_findings(claims: Iterable[Ablation], found: Sequence[PruningResult]) -> list[Finding]:
    """Return a finding for each ablation, number and table that contains rows of both networks.

    found: results on models of one kind. The verdict is "cannot tell" for networks that were trained too briefly,
    whatever the difference.
    """
    findings, tables = [], groups(found)
    for ablation in claims:
        for name, members in tables.items():
            rows = {row.network: (one, row) for one in members for row in one.rows.values() if _own_network(one, row)}
            if ablation.of in rows and ablation.ablated in rows:
                numbers = [number for number in ablation.numbers if number in kind_named(members[0].kind).numbers]
                findings += [
                    Finding(ablation, name, _difference(number, rows[ablation.of], rows[ablation.ablated]))
                    for number in numbers
                ]
    return findings


def _own_network(one: PruningResult, row: TimedRow) -> bool:
    """Return whether a row is that of a trained network, not of a method in the model of the table."""
    network, model = getattr(row, "network", None), one.about["model"]
    return network is not None and (network != model or one.about["method"] == model)


def _difference(
    number: str, full: tuple[PruningResult, TimedRow], ablated: tuple[PruningResult, TimedRow]
) -> Difference:
    """Return the paired difference of a number, ablated minus full."""
    kind = kind_named(full[0].kind)
    found = kind.compare(number, ablated, full)
    short = any(result.about["short"] or undertrained(result, row) for result, row in (full, ablated))
    verdict = _COMPARED.get(verdict_of(found, short, kind.style.higher_is_better), "cannot tell")
    return Difference(number, found.second, found.first, found.difference, found.low, found.high, found.n, verdict)
