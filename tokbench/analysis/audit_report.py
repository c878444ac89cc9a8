"""What an audit prints: the table, and what it says of a claimed number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tokbench.analysis.audit import ProtocolVariation, Row
from tokbench.errors import UsageError
from tokbench.metric_names import METRICS
from tokbench.results.columns import column_of
from tokbench.results.markdown import table
from tokbench.stats.split_half import Replicates
from tokbench.stats.spread import Spread


def read_claim(text: str) -> tuple[str, float]:
    """`rfid=0.92` to ("rfid", 0.92). Raises UsageError."""
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError as error:
        raise UsageError(f"--claim {text}: give a metric and its value, as in rfid=0.92") from error
    if not math.isfinite(number):
        raise UsageError(f"--claim {text}: the value must be finite")
    return name.strip(), number


def audit_table(rows: Sequence[Row], names: Sequence[str], count: int) -> str:
    """Every choice's numbers and how far each moves from the default's; choices that change no pixel are named once."""
    default = rows[0]
    shown = [name for name in names if any(name in row.numbers for row in rows)]
    idle = [row for row in rows[1:] if row.same_pixels and row.choice.pixels]
    body = [[row.choice.title] + [_cell(row, default, name) for name in shown] for row in rows if row not in idle]
    half = _half_row(default, shown, count)
    if half:
        body.insert(len(body) - sum(row.choice.named for row in rows), half)
    head = ["choice"] + [column_of(name)[1].title + column_of(name)[1].arrow for name in shown]
    text = table(head, body)
    if idle:
        titles = "; ".join(row.choice.title for row in idle)
        text += f"\nThe tokenizer got the same pixels as by default, so nothing moves, under: {titles}.\n"
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for name, why in row.missing.items():
            reasons.setdefault(why, []).append(f"{name} ({row.choice.title})" if name in shown else name)
    for why, what in reasons.items():
        text += f"\n`-` {', '.join(dict.fromkeys(what))}: {why}\n"
    return text


def _cell(row: Row, default: Row, name: str) -> str:
    entry = row.numbers.get(name)
    if entry is None:
        return "-"
    if entry["value"] is None:
        return "exact"
    digits = column_of(name)[1].digits
    text = f"{entry['value']:,.{digits}f}"
    if row is default:
        return text if entry["low"] is None else f"{text} ± {(entry['high'] - entry['low']) / 2:,.{digits}f}"
    base = default.numbers.get(name, {}).get("value")
    if base is None or entry["value"] == base:
        return "=" if base is not None else text
    gap = entry["value"] - base
    if column_of(name)[1].more is False and base:  # a distance: its relative change is what papers differ by
        return f"{text} ({gap / base:+.1%})"
    return f"{text} ({gap:+.{digits}f})"


def _half_row(default: Row, names: Sequence[str], count: int) -> list[str] | None:
    """The default on half of the images: what N alone does to a distance."""
    if not default.replicates:
        return None
    cells = []
    for name in names:
        made, digits = default.replicates.get(name), column_of(name)[1].digits
        base = default.numbers[name]["value"] if name in default.numbers else None
        if not isinstance(made, Replicates) or not base:
            cells.append("-")
        else:
            mean = float(made.halves.mean())
            cells.append(f"{mean:,.{digits}f} ({mean / base - 1:+.1%})")
    return [f"N = {count // 2:,}, the mean over halves", *cells]


@dataclass(frozen=True)
class Candidate:
    """An answer to a claim: a value at this N, its interval, and all the choices that give it.

    at_claim: about what it would be at the N that authors state; None where that is not to be had from so few images.
    """

    choices: tuple[ProtocolVariation, ...]
    value: float
    low: float
    high: float
    at_claim: float | None

    @property
    def title(self) -> str:
        """The choices by name, the protocols that somebody uses first."""
        ordered = sorted(self.choices, key=lambda choice: not choice.named)
        return ", ".join(choice.title for choice in ordered)

    @property
    def quoted(self) -> str:
        """One of them, for a sentence."""
        best = next((choice for choice in self.choices if choice.named), self.choices[0])
        more = len(self.choices) - 1
        return f"`{best.title}`" + (f" (and {more} more)" if more else "")

    @property
    def compared(self) -> float:
        """What is held against a claim."""
        return self.value if self.at_claim is None else self.at_claim

    def holds(self, claim: float) -> bool:
        shift = self.compared - self.value
        return self.low + shift <= claim <= self.high + shift


@dataclass(frozen=True)
class Claim:
    """A reported number held against every choice: candidates, the closest first, and the default's own.

    stated: the largest N that a protocol's authors state, if a distance at this audit's `count` is more biased than one
    there; else None.
    """

    name: str
    value: float
    count: int
    stated: int | None
    found: tuple[Candidate, ...]
    default: Candidate

    @property
    def resolved(self) -> bool:
        """Whether values at this N, or extrapolated from it, can be held against the claim at all."""
        return self.stated is None or all(one.at_claim is not None for one in self.found)


def judge(rows: Sequence[Row], name: str, value: float, count: int) -> Claim:
    """Hold a claim against the rows, of which the first is the default. Raises UsageError where none has the number."""
    by_value: dict[float, list[Row]] = {}
    for row in rows:
        found = row.numbers.get(name, {}).get("value")
        if found is not None:
            by_value.setdefault(found, []).append(row)
    if name not in rows[0].numbers or not by_value:
        asked = ", ".join(sorted({other for row in rows for other in row.numbers})) or "nothing"
        raise UsageError(f"--claim {name}: the default did not give that number; there is {asked}")
    wanted = [row.choice.protocol.published.num_images for row in rows]
    largest = max((n for n in wanted if n), default=0)
    stated = largest if largest > count and METRICS[name].extrapolated else None
    made = []
    for number, same in by_value.items():
        entry, replicates = same[0].numbers[name], same[0].replicates.get(name)
        low, high = (number if entry[edge] is None else entry[edge] for edge in ("low", "high"))
        at = _at(replicates, number, count, stated) if stated else None
        made.append(Candidate(tuple(row.choice for row in same), number, low, high, at))
    # Only where all values can be brought to the N of the claim, they are ranked by that.
    if any(one.at_claim is None for one in made):
        made = [replace(one, at_claim=None) for one in made]
    ranked = tuple(sorted(made, key=lambda one: abs(one.compared - value)))
    default = next(one for one in ranked if rows[0].choice in one.choices)
    return Claim(name, value, count, stated, ranked, default)


def _at(made: Spread | None, value: float, count: int, wanted: int) -> float | None:
    """A distance extrapolated to another N by its law of c / n; None where the law does not hold."""
    limit = made.at_infinity(value) if made else None
    return max(0.0, limit[0] + (value - limit[0]) * count / wanted) if limit else None


def verdict(claim: Claim) -> str:
    """The ranking, and the plain sentences that a reader needs."""
    column, stated, found = column_of(claim.name)[1], claim.stated, claim.found

    def say(value: float) -> str:
        return f"{value:,.{column.digits}f}"

    extrapolated = stated is not None and claim.resolved
    head = ["choice", f"{column.title} at N = {claim.count:,}", "95 %", "off the claim by"]
    head[2:2] = [f"about, at N = {stated:,}"] if extrapolated else []
    body = []
    for one in found:
        shift = one.compared - one.value
        low, high = say(one.low + shift), say(one.high + shift)
        line = [one.title, say(one.value), "-" if low == high else f"{low} to {high}"]
        line.append(f"{one.compared - claim.value:+.{column.digits}f}")
        line[2:2] = [say(one.compared)] if extrapolated else []
        body.append(line)
    best, default, number = found[0], claim.default, f"{claim.value:g}"
    at = f" (about, at N = {stated:,})" if extrapolated else ""
    told = [f"{number} is closest to this tokenizer under {best.quoted}: {say(best.compared)}{at}"]
    if default is not best:
        told[0] += f"; under {default.quoted}, the default, it is {say(default.compared)}"
    holding = [one for one in found if one.holds(claim.value)]
    if not claim.resolved:
        told.append(
            f"But {claim.count:,} images cannot tell: authors use {stated:,}, a Fréchet distance of fewer is higher by "
            "its bias alone, and these are too few to say by how much"
        )
    elif len(holding) > 1:
        told.append(
            f"But the 95 % intervals of {len(holding)} of {len(found)} values hold {number}: "
            f"{claim.count:,} images cannot tell which of them made it"
        )
    elif not holding:
        told.append(f"No interval holds {number}: none of these choices alone explains it on these images")
    return f"{table(head, body, left=(0,))}\n{'. '.join(told)}.\n"


def facts(rows: Sequence[Row], claim: Claim | None = None) -> dict[str, Any]:
    """The audit as a JSON object: `choices`, and `claim` where there was one."""
    told: dict[str, Any] = {"choices": _choices(rows)}
    if claim:
        ranking = [
            {"choices": [choice.title for choice in one.choices], "value": one.value, "low": one.low, "high": one.high,
             "at_claim": one.at_claim}
            for one in claim.found
        ]  # fmt: skip
        told["claim"] = {"metric": claim.name, "value": claim.value, "stated": claim.stated, "ranking": ranking}
    return told


def _choices(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        {
            "choice": row.choice.title,
            "named": row.choice.named,
            "protocol_sha256": row.choice.protocol.sha256,
            "metrics": row.numbers,
            "missing": row.missing,
        }
        for row in rows
    ]
