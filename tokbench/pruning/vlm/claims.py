"""The papers' claims about methods for vision-language models, as verdicts that are computed from measured rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tokbench.pruning.result import PruningResult, unpacked
from tokbench.pruning.vlm.result import JUDGED, VlmRow
from tokbench.stats.bootstrap import bootstrap_pairs

Verdict = Literal["holds", "does not hold", "cannot tell", "not judged"]


@dataclass(frozen=True)
class Claim:
    """A claim that `method` gives more correct answers than `other` at the same keep.

    most: the largest keep that the claim is about.
    """

    text: str
    method: str
    other: str
    most: float = 1.0


CLAIMS = (
    Claim("Diversity beats attention when few tokens are kept.", "divprune", "topk_cls", 0.1),
    Claim("Diversity beats random tokens.", "divprune", "random"),
    Claim("Max-sum diversity beats k-center.", "todre", "todre_k_center"),
    Claim("Both stages of ToDRE beat its second stage alone.", "todre", "todre_stage2"),
    Claim("Both stages of ToDRE beat its first stage alone.", "todre", "todre_stage1"),
    Claim("Both stages of CATP beat its first stage alone.", "catp", "catp_stage1"),
    Claim("Both stages of CATP beat its second stage alone.", "catp", "catp_stage2"),
    Claim("The difference of two layers' attention beats one layer's.", "catp", "catp_single_layer"),
    Claim("A shared budget of the demonstrations beats own budgets.", "catp", "catp_own_budgets"),
    Claim("Recycling removed tokens helps.", "vflowopt_untuned", "vflowopt_drop"),
    Claim("Tuning the parameters helps.", "vflowopt", "vflowopt_untuned"),
)


@dataclass(frozen=True)
class Finding:
    """The difference of the shares of correct answers, method minus other, with its paired 95 % interval."""

    claim: Claim
    keep: float
    difference: float
    low: float
    high: float
    verdict: Verdict


def findings(found: Sequence[PruningResult]) -> Iterator[Finding]:
    """Yield the findings of all claims whose two rows are among the results of one table."""
    by_method = {one.about["method"]: one for one in found}
    for claim in CLAIMS:
        if claim.method not in by_method or claim.other not in by_method:
            continue
        one, other = by_method[claim.method], by_method[claim.other]
        count = one.about["num_questions"]
        for key in sorted(one.rows.keys() & other.rows.keys(), key=float, reverse=True):
            if float(key) >= 1 or float(key) > claim.most:
                continue
            first, second = (unpacked(which.rows[key].right, count) for which in (one, other))
            interval = bootstrap_pairs(second, first, 0)
            verdict = verdict_of(interval.low, interval.high, one.about["whole"]["accuracy"])
            yield Finding(claim, float(key), float(first.mean() - second.mean()), interval.low, interval.high, verdict)


def verdict_of(low: float, high: float, whole: float) -> Verdict:
    """Return the verdict for the interval of a difference. whole: the accuracy with all tokens."""
    if whole < JUDGED:
        return "not judged"
    return "holds" if low > 0 else "does not hold" if high < 0 else "cannot tell"


def most_fragile(row: VlmRow) -> str:
    """Return the type of questions that loses the largest share of its advantage over the most frequent answer.

    Empty if no type loses significantly.
    """
    lost = {
        kind: -one.gap.value / (one.whole - one.floor)
        for kind, one in row.types.items()
        if one.gap.high is not None and one.gap.high < 0 and one.whole > one.floor
    }
    return max(lost, key=lambda kind: lost[kind]) if lost else ""
