"""`tokbench check`: committed facts against today's."""

from __future__ import annotations

import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokbench.api.device import choose_device
from tokbench.cli.options import (
    FILE,
    batch_size_option,
    device_option,
    download_option,
    limit_option,
    progress_bar,
    root_option,
    split_option,
)
from tokbench.errors import ResultError, UsageError

if TYPE_CHECKING:
    from tokbench.results.result import Result


@click.command()
@click.argument("adapters", metavar="[ADAPTER]...", nargs=-1)
@click.option("--data", help="Only results on this dataset (a name), or the path of a folder that has none.")
@split_option
@click.option(
    "--against",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results"),
    show_default=True,
    help="The folder of committed results.",
)
@limit_option
@click.option(
    "--config", type=FILE, help="A tokbench.toml with tolerances [default: that of the current folder, if any]."
)
@click.option("--all", "all_rows", is_flag=True, help="Print the numbers that did not move, too.")
@click.option("--json", "as_json", is_flag=True, help="Print to stdout nothing but a JSON object.")
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Write JUnit XML to this file.")
@click.option(
    "--github/--no-github",
    default=None,
    help="Annotations, and a summary of the step [default: where GITHUB_ACTIONS is true].",
)
@batch_size_option
@device_option
@download_option
@root_option
def check(
    adapters: tuple[str, ...],
    data: str | None,
    split: str | None,
    against: Path,
    limit: int | None,
    config: Path | None,
    all_rows: bool,
    as_json: bool,
    junit: Path | None,
    github: bool | None,
    batch_size: int,
    device: str | None,
    allow_download: bool,
    root: Path | None,
) -> None:
    """Measure committed results again and compare: all of them, or those of the adapters named.

    The images, weights and seed are those of the committed result, so every difference beyond a number's tolerance
    counts, however few images caused it: for the worse it is a regression. Only where the decoder draws noise and this
    is another kind of device than the committed result's, a difference is noise if its paired 95 % interval over the
    images holds 0. Tolerances are set in tokbench.toml:

    \b
        [check.tolerance]
        psnr = 0.01      # dB
        rfid = "1%"

    Exit status: 1 for a regression, an adapter that failed or is gone, or a committed number that can no longer be
    computed; else 3 where nothing could be compared, or where pixels, protocol or weights are not those of a committed
    result (which is then refused, the others are compared); else 0. What this machine lacks the data, weights or
    packages for is listed. Speeds are not compared. With --limit only means over images are, on the first N images.
    """
    from tokbench.analysis import render
    from tokbench.analysis.regression import check as run
    from tokbench.analysis.tolerances import SETTINGS, read_tolerances
    from tokbench.data.sources.open import is_path
    from tokbench.extractors.pool import ExtractorPool
    from tokbench.io.atomic import write_atomically
    from tokbench.results.leaderboard import read_all

    if config is None and Path(SETTINGS).is_file():
        config = Path(SETTINGS)
    tolerances = read_tolerances(config)
    path = data is not None and is_path(data)
    if split and not path:
        raise UsageError("--split is for the --data of a path that holds several splits")
    try:
        kept = read_all(against)
    except ResultError as error:
        raise _NothingCompared(str(error)) from error
    committed = [
        result
        for result in kept
        if (not adapters or any(_is(name, result) for name in adapters))
        and (data is None or path or result.dataset == data)
    ]
    if path:
        from tokbench.data.dataset import open_dataset
        from tokbench.protocol.protocol import TOKBENCH

        assert data is not None
        name = open_dataset(data, TOKBENCH, size=1, root=root, split=split).name
        committed = [result for result in committed if result.dataset == name]
    if unknown := [name for name in adapters if not any(_is(name, result) for result in committed)]:
        raise UsageError(f"{against} holds no result of {', '.join(unknown)}{f' on {data}' if data else ''}")
    with redirect_stdout(sys.stderr), progress_bar() as progress:
        report = run(
            committed,
            data=data if path else None,
            split=split,
            root=root,
            limit=limit,
            tolerances=tolerances,
            networks=ExtractorPool(choose_device(device), allow_download),
            allow_download=allow_download,
            batch_size=batch_size,
            progress=progress,
        )
    if as_json:
        click.echo(json.dumps(render.check_facts(report), indent=1))
    else:
        click.echo(render.check_table(report, all_rows=all_rows), nl=False)
    if junit:
        write_atomically(junit, render.junit(report).encode())
    if github if github is not None else os.environ.get("GITHUB_ACTIONS") == "true":
        for line in render.workflow_commands(report):
            click.echo(line, err=as_json)
        if step := os.environ.get("GITHUB_STEP_SUMMARY"):
            with Path(step).open("a", encoding="utf-8") as file:
                file.write(f"### tokbench check\n\n{render.check_table(report, all_rows=True)}\n")
    sys.exit(report.exit_status)


class _NothingCompared(click.ClickException):
    """There are no facts to compare with."""

    exit_code = 3


def _is(asked: str, result: Result) -> bool:
    """Whether a result is that of the adapter that was named, by its own name or by what it was made from."""
    return asked in (result.adapter, result.provenance["adapter"].get("source"))
