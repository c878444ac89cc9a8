"""Degradation: how the input of a tokenizer is damaged before it is encoded, while the clean image is the reference."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

from tokbench.errors import UsageError

DegradationKind = Literal["rain", "noise", "blur", "jpeg"]


@dataclass(frozen=True)
class _Rule:
    """The levels of one kind: what a level means, and the smallest and the largest one. whole: only integers."""

    meaning: str
    least: float
    most: float
    whole: bool = False


RULES: dict[DegradationKind, _Rule] = {
    "rain": _Rule("the amount of rain", 0.001, 1),
    "noise": _Rule("the standard deviation of Gaussian noise in levels of 255", 0.1, 255),
    "blur": _Rule("the standard deviation of a Gaussian blur in pixels", 0.1, 20),
    "jpeg": _Rule("the quality of a JPEG file", 1, 95, whole=True),
}
"""The kinds of degradation and their levels."""

_GRAMMAR = re.compile(r"([a-z]+):(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Degradation:
    """A kind of degradation and its level. `str()` returns `rain:0.5`, the form of the option and of results."""

    kind: DegradationKind
    level: float

    @classmethod
    def parse(cls, text: str) -> Degradation:
        """Parse `KIND:LEVEL`. Raises UsageError that names the fault and the known kinds."""
        found = _GRAMMAR.fullmatch(text.strip())
        if found is None or found[1] not in RULES:
            known = ", ".join(f"{kind}:LEVEL ({rule.meaning})" for kind, rule in RULES.items())
            raise UsageError(f"no degradation '{text}'; there are: {known}")
        kind, level = cast(DegradationKind, found[1]), float(found[2])
        rule = RULES[kind]
        if not rule.least <= level <= rule.most or (rule.whole and level != int(level)):
            what = "an integer" if rule.whole else "a number"
            raise UsageError(
                f"degradation '{text}': the level is {rule.meaning}, {what} from {rule.least:g} to {rule.most:g}"
            )
        if float(f"{level:g}") != level:
            raise UsageError(f"degradation '{text}': give a level with at most six digits, since file names contain it")
        return cls(kind, level)

    def __str__(self) -> str:
        return f"{self.kind}:{self.level:g}"

    @property
    def slug(self) -> str:
        """The form in file names: `rain-0.5`."""
        return f"{self.kind}-{self.level:g}"
