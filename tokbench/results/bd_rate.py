"""Rates at equal quality: how many bits the rows of a table need, compared with a codec at several qualities.

Rows of a codec at several settings (`jpeg.q10` to `jpeg.q90`) form one curve and get Bjøntegaard's delta rate. A row
that is no such codec has one rate; its bits are compared with those that the anchor needs for the quality of the row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokbench.errors import UsageError
from tokbench.results.columns import column_of
from tokbench.results.result import Result, settings
from tokbench.stats.bjontegaard import MIN_POINTS, IncomparableCurves, RateCurve, as_percent, log_rate_gap, overlap
from tokbench.stats.bootstrap import Interval
from tokbench.stats.spread import GROUPS, Jackknife

NUMBERS = ("psnr", "ms_ssim", "lpips")
"""The quality measures that are compared unless others are given."""

RATE = "bpp"

_SETTING = re.compile(r"[a-z]+\d+")
"""The last part of the name of a codec at one setting, such as q50 or db36."""


@dataclass(frozen=True)
class RateChange:
    """The change of the rate of one curve or row at equal quality.

    name: a family of codecs, or a row. number: the quality measure. points: the number of rows that were used. percent:
    the change of the rate, or None with a `reason`. interval: of `percent`, over images, if the results have values per
    image. low, high: the range of qualities that was compared; equal for a single row.
    """

    name: str
    number: str
    points: int
    percent: float | None = None
    interval: Interval | None = None
    low: float = np.nan
    high: float = np.nan
    reason: str = ""


def rate_changes(results: Sequence[Result], anchor: str, numbers: Sequence[str] = NUMBERS) -> list[RateChange]:
    """Return the changes of the rate of all other curves and rows of a table, compared with `anchor`.

    results: rows of one table. anchor: a family of codecs with at least four rows, such as `jpeg`. Raises UsageError if
    the table has no such curve, and for a number without a better direction.
    """
    for number in numbers:
        if column_of(number)[1].more is None:
            raise UsageError(f"{number} is no measure of quality; give for example {', '.join(NUMBERS)}")
    curves = _curves(results)
    if not curves:
        raise UsageError(f"these results have no {column_of(RATE)[1].title} (metric rate), which is what is compared")
    if len(curves.get(anchor, ())) < MIN_POINTS:
        known = ", ".join(name for name, rows in curves.items() if len(rows) >= MIN_POINTS)
        raise UsageError(
            f"the anchor '{anchor}' is no codec with at least {MIN_POINTS} rows here; there are: {known or 'none'}"
        )
    found = []
    for number in numbers:
        most = max(_num_values(row, number) for rows in curves.values() for row in rows)
        found += [
            _change(name, rows, curves[anchor], number, most) for name, rows in sorted(curves.items()) if name != anchor
        ]
    return found


def _curves(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Return the rows of each curve by its name: the rows of one codec, or a single row."""
    found: dict[str, list[Result]] = {}
    for result in results:
        if RATE not in result.metrics:
            continue
        family, _, setting = result.adapter.rpartition(".")
        codec = result.provenance["adapter"]["kind"] == "codec" and family and _SETTING.fullmatch(setting)
        found.setdefault(family if codec else result.row, []).append(result)
    return found


def _num_values(row: Result, number: str) -> int:
    """Return the number of images that the value of a row is from; 0 if it was not measured."""
    entry = row.metrics.get(number)
    return 0 if entry is None else int(entry.get("n", row.num_images))


def _whole(rows: Sequence[Result], number: str, most: int) -> list[Result]:
    """Return the rows of a curve without those that have the number for a part of the images only.

    The PSNR of images that are reproduced exactly is not defined. The mean of the others belongs to other images than
    the rate.
    """
    return [row for row in rows if number not in row.metrics or _num_values(row, number) == most]


def _change(name: str, rows: Sequence[Result], anchors: Sequence[Result], number: str, most: int) -> RateChange:
    """most: the largest number of images that a row of the table has the number for."""
    given, rows, anchors = rows, _whole(rows, number, most), _whole(anchors, number, most)
    if not rows:
        exact = ", ".join(row.row for row in given)
        reason = f"{number} exists for {_num_values(given[0], number)} of {most} images"
        return RateChange(exact, number, len(given), reason=reason)
    if len(rows) == 1:
        name = rows[0].row
    lacking = [row.row for row in (*rows, *anchors) if row.metrics.get(number, {}).get("value") is None]
    if lacking:
        return RateChange(name, number, len(rows), reason=f"{number} was not measured for {', '.join(lacking)}")
    if len({tuple(sorted(settings(row, number).items())) for row in (*rows, *anchors)}) > 1:
        return RateChange(name, number, len(rows), reason="networks or settings differ from those of the anchor")
    anchor, other, more = _points(anchors, number), _points(rows, number), bool(column_of(number)[1].more)
    try:
        gap, (low, high) = _log_gap(anchor, other, more), _range(anchor, other, more)
    except IncomparableCurves as error:
        return RateChange(name, number, len(rows), reason=str(error))
    return RateChange(name, number, len(rows), as_percent(gap), _interval(anchors, rows, number, gap, more), low, high)


_Points = tuple[np.ndarray, np.ndarray]
"""Rates (n,) and qualities (n,)."""


def _points(rows: Sequence[Result], number: str) -> _Points:
    rates, qualities = (np.array([float(row.metrics[key]["value"]) for row in rows]) for key in (RATE, number))
    return rates, qualities


def _log_gap(anchor: _Points, other: _Points, more: bool) -> float:
    curve = RateCurve(*anchor, more)
    if len(other[0]) == 1:
        return float(np.log10(other[0][0])) - curve.log_rate(float(other[1][0]))
    return log_rate_gap(curve, RateCurve(*other, more))


def _range(anchor: _Points, other: _Points, more: bool) -> tuple[float, float]:
    if len(other[0]) == 1:
        return float(other[1][0]), float(other[1][0])
    return overlap(RateCurve(*anchor, more), RateCurve(*other, more))


def _interval(
    anchors: Sequence[Result], rows: Sequence[Result], number: str, gap: float, more: bool
) -> Interval | None:
    """Return the interval over images of a change in percent, from a jackknife over groups of images.

    None if not all rows have values of the same images, or if the curves of a part of the images cannot be compared.
    """
    members = (*anchors, *rows)
    if not all(key in row.per_image for row in members for key in (RATE, number)):
        return None
    index = members[0].per_image["index"]
    if not all(np.array_equal(row.per_image["index"], index) for row in members):
        return None
    rates, qualities = (np.stack([row.per_image[key] for row in members]) for key in (RATE, number))
    if len(index) < 2 or np.isnan(rates).any() or np.isnan(qualities).any():
        return None
    group, split = np.arange(len(index)) % min(GROUPS, len(index)), len(anchors)
    left = []
    for one in range(group.max() + 1):
        means = [values[:, group != one].mean(axis=1) for values in (rates, qualities)]
        try:
            ours, theirs = (means[0][split:], means[1][split:]), (means[0][:split], means[1][:split])
            left.append(_log_gap(theirs, ours, more))
        except IncomparableCurves:
            return None
    interval = Jackknife(np.array(left)).interval(gap, len(index))
    return Interval(as_percent(interval.low), as_percent(interval.high), interval.n)
