"""The output of an audit: the table of values, and the ranking of choices for a claimed value."""

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
    """Parse `rfid=0.92` as ("rfid", 0.92). Raises UsageError."""
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError as error:
        raise UsageError(f"--claim {text}: expected a metric and its value, for example rfid=0.92") from error
    if not math.isfinite(number):
        raise UsageError(f"--claim {text}: the value must be finite")
    return name.strip(), number


def audit_table(rows: Sequence[Row], names: Sequence[str], count: int) -> str:
    """Return a Markdown table of every choice's values and their change from the default.

    Choices that leave all pixels unchanged are listed below the table.
    """
    default = rows[0]
    shown = [name for name in names if any(name in row.numbers for row in rows)]
    unchanged = [row for row in rows[1:] if row.same_pixels and row.choice.pixels]
    body = [[row.choice.title] + [_cell(row, default, name) for name in shown] for row in rows if row not in unchanged]
    half = _half_row(default, shown, count)
    if half:
        body.insert(len(body) - sum(row.choice.named for row in rows), half)
    head = ["choice"] + [column_of(name)[1].title + column_of(name)[1].arrow for name in shown]
    text = table(head, body)
    if unchanged:
        titles = "; ".join(row.choice.title for row in unchanged)
        text += f"\nThese choices do not change the pixels, so their values equal the default: {titles}.\n"
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
    if column_of(name)[1].more is False and base:  # differences between papers in a distance are relative
        return f"{text} ({gap / base:+.1%})"
    return f"{text} ({gap:+.{digits}f})"


def _half_row(default: Row, names: Sequence[str], count: int) -> list[str] | None:
    """Return the row of the default on half of the images, which shows the effect of N on a distance."""
    if not default.replicates:
        return None
    cells = []
    for name in names:
        spread, digits = default.replicates.get(name), column_of(name)[1].digits
        base = default.numbers[name]["value"] if name in default.numbers else None
        if not isinstance(spread, Replicates) or not base:
            cells.append("-")
        else:
            mean = float(spread.halves.mean())
            cells.append(f"{mean:,.{digits}f} ({mean / base - 1:+.1%})")
    return [f"N = {count // 2:,}, the mean over halves", *cells]


@dataclass(frozen=True)
class ClaimMatch:
    """A value to compare with a claim: the value at this N, its 95 % interval, and all choices that give it.

    at_claim: the value extrapolated to the N that the authors state; None if it cannot be extrapolated from so few
    images.
    """

    choices: tuple[ProtocolVariation, ...]
    value: float
    low: float
    high: float
    at_claim: float | None

    @property
    def title(self) -> str:
        """The titles of the choices, named protocols first."""
        ordered = sorted(self.choices, key=lambda choice: not choice.named)
        return ", ".join(choice.title for choice in ordered)

    @property
    def quoted(self) -> str:
        """The title of one choice for use in a sentence, with the number of others."""
        best = next((choice for choice in self.choices if choice.named), self.choices[0])
        more = len(self.choices) - 1
        return f"`{best.title}`" + (f" (and {more} more)" if more else "")

    @property
    def compared(self) -> float:
        """The value that is compared with a claim."""
        return self.value if self.at_claim is None else self.at_claim

    def contains(self, claim: float) -> bool:
        """Return whether the interval, shifted to the N of the claim, contains the claimed value."""
        shift = self.compared - self.value
        return self.low + shift <= claim <= self.high + shift


@dataclass(frozen=True)
class Claim:
    """A reported value compared with every choice.

    found: the values, the closest first; default: that of the default protocol. count: the audit's N. stated: the
    largest N that a protocol's authors state, if the metric is a distance whose bias is larger at `count`; else None.
    """

    name: str
    value: float
    count: int
    stated: int | None
    found: tuple[ClaimMatch, ...]
    default: ClaimMatch

    @property
    def resolved(self) -> bool:
        """Whether the values, or their extrapolations, can be compared with the claim."""
        return self.stated is None or all(one.at_claim is not None for one in self.found)


def match_claim(rows: Sequence[Row], name: str, value: float, count: int) -> Claim:
    """Compare a claimed value with the rows, the default first. Raises UsageError if the default has no such value."""
    by_value: dict[float, list[Row]] = {}
    for row in rows:
        found = row.numbers.get(name, {}).get("value")
        if found is not None:
            by_value.setdefault(found, []).append(row)
    if name not in rows[0].numbers or not by_value:
        available = ", ".join(sorted({other for row in rows for other in row.numbers})) or "none"
        raise UsageError(f"--claim {name}: the default protocol gave no such value; available: {available}")
    wanted = [row.choice.protocol.published.num_images for row in rows]
    largest = max((n for n in wanted if n), default=0)
    stated = largest if largest > count and METRICS[name].extrapolated else None
    matches = []
    for number, same in by_value.items():
        entry, replicates = same[0].numbers[name], same[0].replicates.get(name)
        low, high = (number if entry[edge] is None else entry[edge] for edge in ("low", "high"))
        at_claim = _extrapolated(replicates, number, count, stated) if stated else None
        matches.append(ClaimMatch(tuple(row.choice for row in same), number, low, high, at_claim))
    # Values are ranked at the N of the claim only if all of them can be extrapolated to it.
    if any(one.at_claim is None for one in matches):
        matches = [replace(one, at_claim=None) for one in matches]
    ranked = tuple(sorted(matches, key=lambda one: abs(one.compared - value)))
    default = next(one for one in ranked if rows[0].choice in one.choices)
    return Claim(name, value, count, stated, ranked, default)


def _extrapolated(spread: Spread | None, value: float, count: int, wanted: int) -> float | None:
    """Return a distance extrapolated to another N, assuming a bias of c / n; None if the replicates contradict that."""
    limit = spread.extrapolate(value) if spread else None
    return max(0.0, limit[0] + (value - limit[0]) * count / wanted) if limit else None


def verdict(claim: Claim) -> str:
    """Return the Markdown table of the ranking, and sentences that interpret it."""
    column, stated, found = column_of(claim.name)[1], claim.stated, claim.found

    def text(value: float) -> str:
        return f"{value:,.{column.digits}f}"

    extrapolated = stated is not None and claim.resolved
    head = ["choice", f"{column.title} at N = {claim.count:,}", "95 %", "minus the claim"]
    head[2:2] = [f"estimated at N = {stated:,}"] if extrapolated else []
    body = []
    for one in found:
        shift = one.compared - one.value
        low, high = text(one.low + shift), text(one.high + shift)
        line = [one.title, text(one.value), "-" if low == high else f"{low} to {high}"]
        line.append(f"{one.compared - claim.value:+.{column.digits}f}")
        line[2:2] = [text(one.compared)] if extrapolated else []
        body.append(line)
    best, default, number = found[0], claim.default, f"{claim.value:g}"
    at = f" (estimated at N = {stated:,})" if extrapolated else ""
    sentences = [f"The value closest to {number} is {text(best.compared)}{at}, under {best.quoted}"]
    if default is not best:
        sentences[0] += f"; the default, {default.quoted}, gives {text(default.compared)}"
    containing = [one for one in found if one.contains(claim.value)]
    if not claim.resolved:
        sentences.append(
            f"{claim.count:,} images are too few to decide: authors use {stated:,}, the bias of a Fréchet distance is "
            "larger with fewer images, and it cannot be estimated from this number of images"
        )
    elif len(containing) > 1:
        sentences.append(
            f"The 95 % intervals of {len(containing)} of {len(found)} values contain {number}, "
            f"so {claim.count:,} images do not determine which choice produced it"
        )
    elif not containing:
        sentences.append(f"No interval contains {number}: none of these choices alone explains it on these images")
    return f"{table(head, body, left=(0,))}\n{'. '.join(sentences)}.\n"


def facts(rows: Sequence[Row], claim: Claim | None = None) -> dict[str, Any]:
    """Return the audit as a JSON object: `choices`, and `claim` if one was given."""
    record: dict[str, Any] = {"choices": _choices(rows)}
    if claim:
        ranking = [
            {"choices": [choice.title for choice in one.choices], "value": one.value, "low": one.low, "high": one.high,
             "at_claim": one.at_claim}
            for one in claim.found
        ]  # fmt: skip
        record["claim"] = {"metric": claim.name, "value": claim.value, "stated": claim.stated, "ranking": ranking}
    return record


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
