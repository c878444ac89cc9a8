"""`tokbench bd-rate`: bits at equal quality, compared with a codec."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokbench.cli.options import out_option
from tokbench.cli.tables import print_lines
from tokbench.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from tokbench.results.bd_rate import RateChange


@click.command("bd-rate")
@click.argument("table", metavar="TABLE")
@click.option("--anchor", default="jpeg", show_default=True, help="Codec to compare with; at least four rows of it.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NUMBER,...",
    help="Measures of quality [default: psnr, ms_ssim and lpips].",
)
@click.option("--json", "as_json", is_flag=True, help="Print only a JSON list to stdout.")
@out_option("Folder of results.")
def bd_rate(table: str, anchor: str, metrics: tuple[str, ...], as_json: bool, out: Path) -> None:
    """Compare bits at equal quality: the rows of a table with a codec.

    TABLE is the name of a leaderboard, such as photos-512-reconstruct. A codec with at least four rows (jpeg.q10 to
    jpeg.q90) has Bjontegaard's delta rate: the mean change of the rate in percent, over the qualities that it shares
    with the anchor. Every other row is compared at its own quality. Negative changes are savings. Rows whose qualities
    the anchor does not reach are listed with the reason.
    """
    from tokbench.results.bd_rate import NUMBERS, rate_changes
    from tokbench.results.leaderboard import groups, read_all

    tables = groups(read_all(out))
    if table not in tables:
        raise UsageError(f"no table '{table}' in {out}; {did_you_mean(table, tables)}there are: {', '.join(tables)}")
    numbers = tuple(name.strip() for name in ",".join(metrics).split(",") if name.strip()) or NUMBERS
    found = rate_changes(tables[table], anchor, numbers)
    if as_json:
        click.echo(json.dumps([_plain(change) for change in found], indent=1, allow_nan=False))
        return
    click.echo(f"{table}: change of the bits at equal quality, compared with {anchor}\n")
    print_lines(["number", "name", "rows", "bits at equal quality", "compared at"], [_line(one) for one in found])


def _plain(change: RateChange) -> dict[str, object]:
    found = asdict(change)
    if change.percent is None:
        found |= {"low": None, "high": None}
    return found


def _line(change: RateChange) -> list[str]:
    from tokbench.results.columns import column_of

    if change.percent is None:
        return [change.number, change.name, str(change.points), "-", change.reason]
    digits = column_of(change.number)[1].digits
    interval = change.interval
    spread = "" if interval is None else f" ({interval.low:+.1f} to {interval.high:+.1f})"
    span = f"{change.low:.{digits}f}" + ("" if change.low == change.high else f" to {change.high:.{digits}f}")
    return [change.number, change.name, str(change.points), f"{change.percent:+.1f} %{spread}", span]
