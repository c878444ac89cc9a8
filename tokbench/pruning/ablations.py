"""Ablated twins among reduced networks: what top-1 loses without a part of their training, paired by image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokbench.analysis.ablations import Ablation, Finding
from tokbench.analysis.compare import Difference, Verdict
from tokbench.pruning.result import PruningResult, PruningRow, unpacked
from tokbench.pruning.table import groups, undertrained
from tokbench.stats.bootstrap import bootstrap_pairs

NUMBER = "top1"


def twins(told: Iterable[Ablation], found: Sequence[PruningResult]) -> list[Finding]:
    """What rows say of ablations whose number is top-1: one for each table in which both networks stand.

    Of networks that were trained too briefly no verdict is drawn, whatever the difference.
    """
    made = []
    for ablation in told:
        for name, members in groups(found).items() if NUMBER in ablation.numbers else ():
            rows = {row.network: (one, row) for one in members for row in one.rows.values()}
            if ablation.of in rows and ablation.twin in rows:
                made.append(Finding(ablation, name, _difference(*rows[ablation.of], *rows[ablation.twin])))
    return made


def _difference(one: PruningResult, row: PruningRow, other: PruningResult, twin: PruningRow) -> Difference:
    count = one.about["num_images"]
    first, second = (unpacked(which.right, count) for which in (row, twin))
    interval = bootstrap_pairs(first, second, 0)
    short = any(told.about["short"] for told in (one, other)) or undertrained(row) or undertrained(twin)
    verdict: Verdict = "worse" if interval.high < 0 else "better" if interval.low > 0 else "cannot tell"
    whole, without = float(first.mean()), float(second.mean())
    if short:
        verdict = "cannot tell"
    return Difference(NUMBER, whole, without, without - whole, interval.low, interval.high, count, verdict)
