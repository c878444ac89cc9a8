"""Verdicts on claims about methods, computed from pairs of measured rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tokbench.pruning.claims import Claim, Comparison
from tokbench.pruning.kinds import ModelKind, kind_named
from tokbench.pruning.result import PruningResult, keep_of_row
from tokbench.pruning.table import row_order, undertrained
from tokbench.results.markdown import table

Verdict = Literal["holds", "does not hold", "cannot tell", "not judged"]


@dataclass(frozen=True)
class Finding:
    """The comparison of the two rows of a claim, at one keep; None for rows without a keep ratio."""

    claim: Claim
    keep: float | None
    comparison: Comparison
    verdict: Verdict


def findings(found: Sequence[PruningResult]) -> Iterator[Finding]:
    """Yield the findings of all claims whose two rows are among the results of one table."""
    kind: ModelKind = kind_named(found[0].kind)
    by_method = {one.about["method"]: one for one in found}
    stated = [Claim(**claim) for one in found for claim in one.about.get("claims", ())]
    for claim in (*kind.claims, *stated):
        if claim.method not in by_method or claim.other not in by_method:
            continue
        one, other = by_method[claim.method], by_method[claim.other]
        for key in sorted(one.rows.keys() & other.rows.keys(), key=row_order):
            keep = keep_of_row(key)
            if keep is not None and (keep >= 1 or keep > claim.most):
                continue
            pair = (one, one.rows[key]), (other, other.rows[key])
            comparison = kind.compare(claim.number, *pair)
            short = one.about["short"] or any(undertrained(*each) for each in pair)
            yield Finding(claim, keep, comparison, verdict_of(comparison, short, kind.style.higher_is_better))


def verdict_of(comparison: Comparison, short: bool, higher_is_better: bool = True) -> Verdict:
    """Return the verdict on the claim that the first number is better.

    short: whether the full model or a row is too weak for a verdict.
    """
    if short:
        return "not judged"
    above, below = comparison.low > 0, comparison.high < 0
    better, worse = (above, below) if higher_is_better else (below, above)
    return "holds" if better else "does not hold" if worse else "cannot tell"


def claims_table(found: Sequence[PruningResult]) -> str:
    """Return the verdicts on the claims as a section in Markdown; empty without claims."""
    style = kind_named(found[0].kind).style
    body = [
        [
            one.claim.text, f"{one.claim.method} - {one.claim.other}", "-" if one.keep is None else f"{one.keep:g}",
            style.gap(one.comparison.difference, one.comparison.low, one.comparison.high), one.verdict,
        ]
        for one in findings(found)
    ]  # fmt: skip
    if not body:
        return ""
    head = ["claim", "rows", "keep", f"difference {style.unit}", "verdict"]
    return f"\n## Claims\n\n{table(head, body)}"
