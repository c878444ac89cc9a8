"""Claims about methods, and the comparison of the two measured rows that a claim is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokbench.analysis.ablations import ablations
from tokbench.pruning.result import PruningResult, unpacked
from tokbench.stats.bootstrap import bootstrap_pairs

JUDGED = 0.8
"""Smallest accuracy of the full model, or AP50 of a detector, at which a verdict on a method is drawn."""


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
