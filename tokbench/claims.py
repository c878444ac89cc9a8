"""What an audit prints: the table, and what it says of a claimed number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokbench.audit import Choice, Row
from tokbench.errors import UsageError
from tokbench.halves import Replicates
from tokbench.leaderboard import column_of, table
from tokbench.metrics import METRICS


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
    idle = [row for row in rows[1:] if row.same_pixels and not row.choice.named and _only_pixels(row)]
    body = [[row.choice.title] + [_cell(row, default, name) for name in shown] for row in rows if row not in idle]
    half = _half_row(default, shown, count)
    if half:
        body.insert(len(body) - sum(row.choice.named for row in rows), half)
    head = ["choice"] + [column_of(name)[1].title + column_of(name)[1].arrow for name in shown]
    text = table(head, body)
    if idle:
        titles = "; ".join(row.choice.title for row in idle)
        text += f"\nThe tokenizer got the same pixels, the images having the size already, under: {titles}.\n"
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for name, why in row.missing.items():
            reasons.setdefault(why, []).append(f"{name} ({row.choice.title})" if name in shown else name)
    for why, what in reasons.items():
        text += f"\n`-` {', '.join(dict.fromkeys(what))}: {why}\n"
    return text


def _only_pixels(row: Row) -> bool:
    return row.choice.title.startswith(("crop", "filter", "library"))


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
        if made is None or not base:
            cells.append("-")
        else:
            mean = float(made.halves.mean())
            cells.append(f"{mean:,.{digits}f} ({mean / base - 1:+.1%})")
    return [f"N = {count // 2:,}, the mean over halves", *cells]


@dataclass(frozen=True)
class Candidate:
    """An answer to a claim: a value at this N, its interval, and all the choices that give it.

    published: about what it would be at the N that the authors of one of them state.
    """

    choices: tuple[Choice, ...]
    value: float
    low: float
    high: float
    published: float | None
    published_count: int | None

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

    def holds(self, claim: float) -> bool:
        return self.low <= claim <= self.high


def candidates(rows: Sequence[Row], name: str, claim: float, count: int) -> list[Candidate]:
    """The values that the claimed number has in the rows, the closest first. Raises UsageError where there is none."""
    by_value: dict[float, list[Row]] = {}
    for row in rows:
        value = row.numbers.get(name, {}).get("value")
        if value is not None:
            by_value.setdefault(value, []).append(row)
    if not by_value:
        asked = ", ".join(sorted({other for row in rows for other in row.numbers})) or "nothing"
        raise UsageError(f"--claim {name}: no choice gave that number; there is {asked}")
    found = []
    for value, same in by_value.items():
        entry = same[0].numbers[name]
        low, high = (value if entry[edge] is None else entry[edge] for edge in ("low", "high"))
        stated = [row.choice.protocol.published.num_images for row in same]
        wanted = max((n for n in stated if n and n > count), default=None)
        at = _at(same[0].replicates.get(name), value, count, wanted) if wanted else None
        found.append(Candidate(tuple(row.choice for row in same), value, low, high, at, wanted))
    return sorted(found, key=lambda one: abs(one.value - claim))


def _at(made: Replicates | None, value: float, count: int, wanted: int) -> float | None:
    """A distance extrapolated to another N by its law of c / n; None where the law does not hold."""
    limit = made.at_infinity(value) if made else None
    return limit[0] + (value - limit[0]) * count / wanted if limit else None


def verdict(found: Sequence[Candidate], name: str, claim: float, count: int) -> str:
    """The ranking, and the plain sentences that a reader needs."""
    column = column_of(name)[1]

    def say(value: float) -> str:
        return f"{value:,.{column.digits}f}"

    head = ["choice", f"{column.title} at N = {count:,}", "95 %", "off the claim by", "about, at its authors' N"]
    body = [
        [
            one.title,
            say(one.value),
            "-" if one.low == one.high else f"{say(one.low)} to {say(one.high)}",
            f"{one.value - claim:+.{column.digits}f}",
            f"{say(one.published)} (N = {one.published_count:,})" if one.published is not None else "-",
        ]
        for one in found
    ]
    best = found[0]
    default = next(one for one in found if any(not choice.named for choice in one.choices))
    told = [f"{claim:g} is closest to this tokenizer under {best.quoted}: {say(best.value)}"]
    if default is not best:
        told[0] += f"; under {default.quoted} it is {say(default.value)}"
    holding = [one for one in found if one.holds(claim)]
    if len(holding) > 1:
        told.append(
            f"But the 95 % intervals of {len(holding)} of {len(found)} values hold {claim:g}: {count:,} images cannot "
            "tell which of them made it"
        )
    elif not holding:
        told.append(f"No interval holds {claim:g}: none of these choices alone explains it at N = {count:,}")
    stated = max((one.published_count for one in found if one.published_count), default=0)
    if stated and METRICS[name].path.startswith("frechet"):
        told.append(
            f"Authors who state an N use {stated:,}; at {count:,} images a Fréchet distance is higher by bias alone, "
            "so compare a claim made there with the last column"
        )
    return f"{table(head, body, left=(0,))}\n{'. '.join(told)}.\n"


def facts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The audit as JSON objects."""
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
