"""`tokbench plan`: how many images tell two results apart, and how long their evaluation takes here."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokbench.cli.options import FILE, device_option, download_option, reading_options, root_option, say
from tokbench.cli.tables import print_lines
from tokbench.data.reading import ReadOptions
from tokbench.errors import TokbenchError

if TYPE_CHECKING:
    from tokbench.analysis.image_plan import ImagePlan


@click.command()
@click.argument("first", type=FILE, metavar="A.json")
@click.argument("second", type=FILE, metavar="B.json")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NUMBER,...",
    help="Numbers to plan for, for example rfid_768,psnr [default: all numbers with an interval].",
)
@click.option(
    "--power",
    type=click.FloatRange(0.5, 0.99),
    default=0.8,
    show_default=True,
    help="Probability with which the interval of that many images excludes 0.",
)
@click.option(
    "--time",
    "timed",
    type=click.IntRange(min=0),
    default=16,
    show_default=True,
    help="Measure the time on this number of images; 0 for no time.",
)
@click.option("--data", help="Path of the images [default: the dataset named in the results].")
@reading_options()
@device_option
@download_option
@click.option("--json", "as_json", is_flag=True, help="Print only a JSON object to stdout.")
@root_option
def plan(
    first: Path,
    second: Path,
    metrics: tuple[str, ...],
    power: float,
    timed: int,
    data: str | None,
    reading: ReadOptions,
    device: str | None,
    allow_download: bool,
    as_json: bool,
    root: Path | None,
) -> None:
    """Tell how many images the paired difference of two results needs to be significant, and how long they take here.

    The number follows from the difference and its paired 95 % interval in the two result files: half widths of
    intervals decrease with the square root of the number of images. The difference itself is only an estimate: the
    range is that of the ends of its interval. A Fréchet distance also depends on the number of images; plan for its
    extrapolation (rfid_768_infinity) where both results have it.

    The time is that of both adapters and the metrics of these numbers on the first images, in proportion. Nothing is
    written. To plan the training of adapters, see tokbench train plan.
    """
    from tokbench.analysis.image_plan import dataset_of, plan_images, seconds_per_image
    from tokbench.api.device import choose_device
    from tokbench.results.result import load

    left, right = load(first), load(second)
    numbers = [name.strip() for name in ",".join(metrics).split(",") if name.strip()]
    plans = plan_images(left, right, numbers, power)
    pace = None
    if timed:
        open_images = partial(dataset_of, right, data, root, reading)
        where = choose_device(device), root, allow_download
        try:
            names = [one.difference.number for one in plans]
            pace = seconds_per_image(left, right, names, open_images, timed, *where)
        except TokbenchError as error:
            say(f"no time: {error}")
    if as_json:
        records = [one.to_dict() for one in plans]
        click.echo(json.dumps({"power": power, "seconds_per_image": pace, "numbers": records}, indent=1))
        return
    click.echo(f"{left.row} and {right.row}: images for a 95 % interval without 0, with probability {power:g}\n")
    print_lines(["number", "difference", "images now", "images needed", "range", "time here"], _rows(plans, pace))


def _rows(plans: list[ImagePlan], pace: float | None) -> list[list[str]]:
    from tokbench.results.columns import column_of

    rows = []
    for one in plans:
        gap, digits = one.difference, column_of(one.difference.number)[1].digits + 1
        needed = "no interval" if math.isnan(gap.low) else "interval does not scale"
        if gap.gap == 0:
            needed = "no number is enough"
        span = duration = ""
        if one.needed is not None:
            needed = f"{one.needed:,}"
            span = f"{one.fewest:,} to {one.most:,}" if one.most is not None else f"{one.fewest:,} or more"
            duration = "" if pace is None else _duration(pace * one.needed)
        rows.append([gap.number, f"{gap.gap:+.{digits}f}", f"{gap.n:,}", needed, span, duration])
    return rows


def _duration(seconds: float) -> str:
    """Return a duration in the largest unit in which it is at least 1."""
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} seconds"
