"""`tokbench sizes`: quality, time and memory against the size of the images."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from tokbench.cli.options import out_option
from tokbench.cli.tables import print_lines
from tokbench.errors import UsageError


@click.command()
@click.argument("data", metavar="DATA")
@click.option("--protocol", default="tokbench", show_default=True, help="Name of the protocol of the results.")
@click.option("--json", "as_json", is_flag=True, help="Print only a JSON list to stdout, one object per row.")
@out_option("Folder of results.")
def sizes(data: str, protocol: str, as_json: bool, out: Path) -> None:
    """Show quality, time and memory against the size of the images.

    DATA is the name of a dataset of which the folder has results at two or more sizes with equal numbers of images, for
    example those of 'tokbench eval ADAPTER --data photos-512 --size 256' and of '--size 512'. Times are milliseconds
    per megapixel, so that they are equal where the time is proportional to the number of pixels; the peak memory is
    that of a batch.
    """
    from tokbench.results.columns import column_of
    from tokbench.results.leaderboard import read_all
    from tokbench.results.sizes import QUALITY, at_sizes

    found = at_sizes(read_all(out), data, protocol)
    if not found:
        raise UsageError(
            f"{out} has no adapter with reconstructions of {data} at two sizes, with equal numbers of images, under "
            f"protocol {protocol}; evaluate it with --data {data}, the same --limit and another --size"
        )
    if as_json:
        click.echo(json.dumps([asdict(row) for row in found], indent=1, allow_nan=False))
        return
    shown = [name for name in QUALITY if any(row.numbers[name] is not None for row in found)]
    columns = [column_of(name)[1] for name in shown]
    head = ["adapter", "size", "images", *(column.title + column.arrow for column in columns)]
    head += ["encode ms/Mpixel", "decode ms/Mpixel", "peak MiB"]
    print_lines(
        head,
        [
            [
                row.row,
                f"{row.width}x{row.height}",
                str(row.num_images),
                *(_text(row.numbers[column.field], column.digits) for column in columns),
                *(_text(value, 0) for value in (row.encode_ms, row.decode_ms, row.peak_mib)),
            ]
            for row in found
        ],
    )


def _text(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
