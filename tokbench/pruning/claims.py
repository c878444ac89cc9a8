"""Claims about methods, as verdicts that are computed from pairs of measured rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tokbench.analysis.ablations import ablations
from tokbench.pruning.kinds import ModelKind, kind_named
from tokbench.pruning.result import PruningResult, keep_of_row, unpacked
from tokbench.pruning.table import row_order, undertrained
from tokbench.results.markdown import table
from tokbench.stats.bootstrap import bootstrap_pairs

JUDGED = 0.8
"""Smallest accuracy of the full model, or AP50 of a detector, at which a verdict on a method is drawn."""

Verdict = Literal["holds", "does not hold", "cannot tell", "not judged"]


@dataclass(frozen=True)
class Claim:
    """A claim that the rows of `method` are better than those of `other` at the same keep.

    number: the field of the rows that is compared. most: the largest keep that the claim is about.
    """

    text: str
    method: str
    other: str
    number: str
    most: float = 1.0


@dataclass(frozen=True)
class Comparison:
    """A number of two rows on the same n images or questions, and the 95 % interval of first minus second.

    The ends are NaN for a single image."""

    first: float
    second: float
    low: float
    high: float
    n: int

    @property
    def difference(self) -> float:
        return self.first - self.second


@dataclass(frozen=True)
class Finding:
    """The comparison of the two rows of a claim, at one keep; None for rows without a keep ratio."""

    claim: Claim
    keep: float | None
    comparison: Comparison
    verdict: Verdict


def compare_right(first: tuple[PruningResult, Any], second: tuple[PruningResult, Any], count: str) -> Comparison:
    """Compare the shares of correct answers of two rows. count: the field of `about` with the number of answers."""
    one, other = (unpacked(row.right, result.about[count]) for result, row in (first, second))
    interval = bootstrap_pairs(other, one, 0)
    return Comparison(float(one.mean()), float(other.mean()), interval.low, interval.high, len(one))


def claims_of_network(name: str, toml: Path, numbers: Sequence[str]) -> tuple[Claim, ...]:
    """Return the claims that a network tests as an ablation, from its TOML file.

    numbers: those that its rows have. Raises AdapterError for an incomplete [ablation].
    """
    return tuple(
        Claim(one.claim, one.of, name, number)
        for one in ablations({name: toml})
        for number in one.numbers
        if number in numbers and "prune" in one.tasks
    )


def claims_about(claims: Sequence[Claim]) -> dict[str, Any]:
    """Return the entry of a result's `about` for the claims that its method tests; empty without claims."""
    return {"claims": [asdict(claim) for claim in claims]} if claims else {}


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
