"""Tolerances of the regression check: the defaults, and those that users set in tokbench.toml."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tokbench.errors import UsageError, did_you_mean
from tokbench.metric_names import METRICS, MetricName, Tolerance
from tokbench.metric_names.spec import form_name
from tokbench.results.columns import column_of

SETTINGS = "tokbench.toml"
"""The name of the file in which a results folder defines tolerances."""


def default_tolerances() -> dict[str, Tolerance]:
    """Return the tolerances of all numbers that a check compares, by name. Curves over sizes are not compared."""
    return {
        form_name(number.name, version, span, spec.suffix): number.tolerance
        for spec in METRICS.values()
        for number in spec.numbers
        for version, span in number.forms()
        if number.tolerance is not None and span != "curve"
    }


def tolerance_of(number: str, tolerances: Mapping[str, Tolerance] | None = None) -> Tolerance | None:
    """Return the tolerance of a number, or None if the number is not compared.

    A number without its own tolerance has that of the underlying number: `rfid_infinity` and `pfid` have that of
    `rfid`, `codebook_usage.sem` has that of `codebook_usage`. tolerances: by number; the default ones if not given.
    """
    known = default_tolerances() if tolerances is None else tolerances
    name = MetricName.parse(number)
    names = (str(replace(name, part="")), name.base, name.number if name.naming else name.base)
    return next((known[one] for one in names if one in known), None)


@dataclass(frozen=True)
class Rules:
    """How the numbers of a check are judged.

    tolerances: by number; None for the default ones. max_drop: by number, how much worse it may become. strict: larger
    tolerances than the default ones have no effect, and a change for the worse of one image counts as one of the mean.
    new_weights: compare results also if the tokenizer has other weights or another configuration. allow_missing: what
    this machine lacks is no failure.
    """

    tolerances: Mapping[str, Tolerance] | None = None
    max_drop: Mapping[str, Tolerance] = field(default_factory=dict)
    strict: bool = False
    new_weights: bool = False
    allow_missing: bool = False

    def tolerance(self, number: str, committed: float | None) -> Tolerance | None:
        """Return the tolerance of a number with this committed value; None if the number is not compared."""
        tolerance, default = tolerance_of(number, self.tolerances), tolerance_of(number)
        if not self.strict or tolerance is None or default is None:
            return tolerance
        return min(tolerance, default, key=lambda one: max(one.absolute, one.relative * abs(committed or 0)))

    def allowed_drop(self, number: str) -> Tolerance | None:
        """Return how much worse a number may become, or None. `pfid` and `rfid_infinity` may drop as `rfid` may."""
        return tolerance_of(number, self.max_drop)


def parse_drops(text: str, option: str) -> dict[str, Tolerance]:
    """Return the largest accepted drops that `psnr=0.1,lpips=2%` states, by number.

    A number without an amount (`psnr`) has its default tolerance. Raises UsageError, which names `option`, for a number
    that a check does not compare, one that is neither better nor worse when it grows, and an invalid amount.
    """
    drops = dict[str, Tolerance]()
    for entry in text.split(","):
        number, equals, amount = (part.strip() for part in entry.partition("="))
        _check_settable(option, number)
        if column_of(number)[1].more is None:
            raise UsageError(f"{option}: {number} is neither better nor worse when it grows, so it cannot drop")
        default = tolerance_of(number)
        assert default is not None
        drops[number] = _tolerance(option, number, amount) if equals else default
    return drops


def read_tolerances(path: Path | None) -> dict[str, Tolerance]:
    """Return the default tolerances, changed by the table `[check.tolerance]` of a tokbench.toml.

    A value is absolute (`psnr = 0.01`) or relative (`rfid = "1%"`). A number that has the tolerance of an underlying
    number by default (`pfid`, `rfid_infinity`) can have its own. path: None for the defaults. Raises UsageError for an
    unknown number, an invalid value, or a table that would be ignored.
    """
    tolerances = default_tolerances()
    if path is None:
        return tolerances
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ValueError: TOML, UTF-8
        raise UsageError(f"{path} cannot be read ({error})") from error
    asked = _section(path, settings)
    for number in sorted(asked):
        _check_settable(path, number)
    return tolerances | {number: _tolerance(path, number, value) for number, value in asked.items()}


def _section(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the table of tolerances. Raises UsageError for a table or key elsewhere that would be ignored."""
    known = "tolerances are set in one table, [check.tolerance], as in psnr = 0.01"
    section = settings.get("check", {})
    stray = [
        f"[{name}]" if isinstance(value, dict) else name for name, value in settings.items() if _stray(name, value)
    ]
    if isinstance(section, dict):
        stray += [f"[check] {name}" for name in section if name != "tolerance"]
    if stray:
        raise UsageError(f"{path}: there is no {', '.join(stray)}; {known}")
    asked = section.get("tolerance", {}) if isinstance(section, dict) else None
    if not isinstance(asked, dict):
        raise UsageError(f"{path}: {known}")
    return asked


def _stray(name: str, value: Any) -> bool:
    """Return whether an entry at the top level is misplaced: an unknown table, or the name of a number.

    Other keys are allowed, because the file of a TorchScript folder has the same name and keys without a table.
    """
    return name != "check" and (isinstance(value, dict) or _settable(name))


def _settable(number: str) -> bool:
    """Return whether a check compares a number of this name, so that a tolerance for it has an effect."""
    name = MetricName.parse(number)
    if name.spec is None or name.part:
        return False
    return tolerance_of(number) is not None and (not name.infinite or name.spec.extrapolated)


def _check_settable(place: Path | str, number: str) -> None:
    if not _settable(number):
        hint = did_you_mean(number, default_tolerances()) or "as in psnr or rfid"
        raise UsageError(f"{place}: tokbench check compares no number '{number}'; {hint.rstrip()}")


def _tolerance(place: Path | str, number: str, value: Any) -> Tolerance:
    try:
        if isinstance(value, bool):  # Python counts true as 1
            raise TypeError("a truth value")
        if isinstance(value, str) and value.endswith("%"):
            tolerance = Tolerance(relative=float(value[:-1]) / 100)
        else:
            tolerance = Tolerance(absolute=float(value))
    except (TypeError, ValueError) as error:
        raise UsageError(f'{place}: {number} = {value!r}; give a number, or a share such as "1%"') from error
    if not (0 <= tolerance.absolute < math.inf and 0 <= tolerance.relative < math.inf):
        raise UsageError(f"{place}: {number} = {value!r}; a tolerance is not negative")
    return tolerance
