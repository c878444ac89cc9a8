"""How the numbers that a kind of models compares are shown in tables."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class NumberStyle:
    """How the numbers that a kind compares are shown. factor: of a number in a table. unit: there."""

    unit: str
    factor: float
    higher_is_better: bool

    def gap(self, value: float, low: float | None, high: float | None) -> str:
        """Return a difference and its interval as text; an interval that cannot be computed is left out."""
        text = f"{self.factor * value:+.1f}"
        if low is None or high is None or math.isnan(low):
            return text
        return f"{text} [{self.factor * low:+.1f}, {self.factor * high:+.1f}]"

    def with_interval(self, value: float, low: float | None, high: float | None) -> str:
        """Return a number and its interval as text; an interval that cannot be computed is left out."""
        text = f"{self.factor * value:.1f}"
        if low is None or high is None or math.isnan(low):
            return text
        return f"{text} [{self.factor * low:.1f}, {self.factor * high:.1f}]"


SHARE = NumberStyle("%", 100, True)
