"""Ablations of pruned networks: the change of top-1 without a component of their training, paired by image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokbench.analysis.ablations import Ablation, Finding
from tokbench.analysis.compare import Difference, Verdict
from tokbench.pruning.result import PruningResult, PruningRow, unpacked
from tokbench.pruning.table import groups, undertrained
from tokbench.stats.bootstrap import bootstrap_pairs

NUMBER = "top1"


def pruning_findings(claims: Iterable[Ablation], found: Sequence[PruningResult]) -> list[Finding]:
    """Return a finding for each ablation of top-1 and each table that contains both networks.

    The verdict is "cannot tell" for networks that were trained too briefly, whatever the difference.
    """
    findings = []
    for ablation in claims:
        for name, members in groups(found).items() if NUMBER in ablation.numbers else ():
            rows = {row.network: (one, row) for one in members for row in one.rows.values()}
            if ablation.of in rows and ablation.ablated in rows:
                findings.append(Finding(ablation, name, _difference(*rows[ablation.of], *rows[ablation.ablated])))
    return findings


def _difference(one: PruningResult, row: PruningRow, other: PruningResult, ablated: PruningRow) -> Difference:
    """Return the paired difference of top-1, ablated minus full."""
    count = one.about["num_images"]
    first, second = (unpacked(which.right, count) for which in (row, ablated))
    interval = bootstrap_pairs(first, second, 0)
    short = any(result.about["short"] for result in (one, other)) or undertrained(row) or undertrained(ablated)
    verdict: Verdict = "worse" if interval.high < 0 else "better" if interval.low > 0 else "cannot tell"
    full, without = float(first.mean()), float(second.mean())
    if short:
        verdict = "cannot tell"
    return Difference(NUMBER, full, without, without - full, interval.low, interval.high, count, verdict)
