"""`tokbench check`: measures committed results again and reports regressions."""

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
    progress_bar,
    reading_options,
    root_option,
    say,
)
from tokbench.data.reading import ReadOptions
from tokbench.errors import ResultError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokbench.results.result import Result


@click.command()
@click.argument("adapters", metavar="[ADAPTER]...", nargs=-1)
@click.option("--data", help="Check only results on this dataset: a dataset's name, or the path of the images.")
@reading_options()
@click.option(
    "--against",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Folder of committed results.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Measure only the first N images of each result.")
@click.option(
    "--config", type=FILE, help="File with tolerances [default: tokbench.toml in the current folder, if it exists]."
)
@click.option(
    "--strict",
    is_flag=True,
    help="Ignore tolerances that are larger than the built-in ones, and fail if one image is worse, even if the mean "
    "is not.",
)
@click.option(
    "--max-drop",
    metavar="NUMBER=AMOUNT,...",
    help="How much worse numbers may become, absolute or as a share of the committed value: psnr=0.1,lpips=2%.",
)
@click.option(
    "--new-weights", is_flag=True, help="Compare adapters that have other weights now with the committed numbers."
)
@click.option(
    "--update", is_flag=True, help="Write the results measured now over the committed ones where they differ."
)
@click.option(
    "--allow-missing",
    is_flag=True,
    help="Do not fail if data, weights or packages of committed numbers are missing here.",
)
@click.option("--all", "all_rows", is_flag=True, help="Also print metrics that did not change.")
@click.option("--json", "as_json", is_flag=True, help="Print only a JSON object to stdout.")
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Write a JUnit XML report to this file.")
@click.option(
    "--github/--no-github",
    default=None,
    help="Print GitHub annotations and write a step summary [default: on if GITHUB_ACTIONS is true].",
)
@batch_size_option
@device_option
@download_option
@root_option
def check(
    adapters: tuple[str, ...],
    data: str | None,
    reading: ReadOptions,
    against: Path,
    limit: int | None,
    config: Path | None,
    strict: bool,
    max_drop: str | None,
    new_weights: bool,
    update: bool,
    allow_missing: bool,
    all_rows: bool,
    as_json: bool,
    junit: Path | None,
    github: bool | None,
    batch_size: int,
    device: str | None,
    allow_download: bool,
    root: Path | None,
) -> None:
    """Measure committed results again and report regressions.

    All committed results are checked, or only those of the named adapters. [NAME=]diffusers:PLACE and
    [NAME=]torchscript:DIR select the results with the name of that checkpoint, also where it lay elsewhere.

    Images, weights and seed are the same as in the committed result, so a value that is worse by more than its
    tolerance is a regression, however few images changed. One exception: if the decoder samples noise and the device
    kind differs from the committed result's, further seeds are measured, and a difference that is as small as those
    between seeds is reported as noise. Tolerances are set in tokbench.toml:

    \b
        [check.tolerance]
        psnr = 0.01      # dB
        rfid = "1%"

    A committed metric or result whose data, weights or packages are missing on this machine is a failure, unless
    --allow-missing is given. Speeds are not compared. With --limit, only metrics that are means over images are
    compared, on the first N images.

    A new checkpoint: --new-weights compares its numbers with the committed ones, and --update writes them.

    Exit status: 1 for a regression, a failed or missing adapter, or a committed metric that is missing here or can no
    longer be computed, also with --update; otherwise 3 if nothing could be compared, or if the pixels, protocol or
    weights differ from those of a committed result (that result is not compared); otherwise 0.
    """
    from tokbench.analysis import render
    from tokbench.analysis.regression import CheckConfig
    from tokbench.analysis.regression import check as run
    from tokbench.analysis.tolerances import SETTINGS, Rules, parse_drops, read_tolerances
    from tokbench.analysis.update import update as write_updates
    from tokbench.data.sources.patterns import is_path
    from tokbench.evaluation.config import Context
    from tokbench.extractors.pool import ExtractorPool
    from tokbench.io.atomic import write_atomically
    from tokbench.paths import cache_dir
    from tokbench.results.leaderboard import read_all

    if config is None and Path(SETTINGS).is_file():
        config = Path(SETTINGS)
    if update and limit:
        raise UsageError("--update writes whole results; leave out --limit")
    drops = parse_drops(max_drop, "--max-drop") if max_drop is not None else {}
    rules = Rules(read_tolerances(config), drops, strict, new_weights, allow_missing)
    path = data is not None and is_path(data)
    if given := [f"--{name}" for name in ("split", "column") if getattr(reading, name) and not path]:
        raise UsageError(f"{given[0]} requires --data to be a path")
    try:
        stored = read_all(against)
    except ResultError as error:
        raise _NothingCompared(str(error)) from error
    wanted, sources = _sources(adapters, stored, root, allow_download)
    committed = [
        result
        for result in stored
        if (not adapters or any(_matches(name, result) for name in wanted))
        and (data is None or path or result.dataset == data)
    ]
    if path:
        from tokbench.modalities.open import open_dataset
        from tokbench.protocol.protocol import TOKBENCH

        assert data is not None
        name = open_dataset(data, TOKBENCH, 1, None, root, reading).name
        committed = [result for result in committed if result.dataset == name]
    if unknown := [name for name in wanted if not any(_matches(name, result) for result in committed)]:
        raise UsageError(f"{against} contains no result of {', '.join(unknown)}{f' on {data}' if data else ''}")
    with redirect_stdout(sys.stderr), progress_bar() as progress:
        networks = ExtractorPool(choose_device(device), allow_download)
        report = run(
            committed,
            CheckConfig(data if path else None, reading, root, limit, rules, batch_size, sources),
            Context(cache_dir(), networks=networks, allow_download=allow_download, progress=progress),
        )
    if as_json:
        click.echo(json.dumps(render.check_facts(report), indent=1))
    else:
        click.echo(render.check_table(report, all_rows=all_rows), nl=False)
    if update:
        for line in write_updates(report, against):
            say(line)
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
    """The folder of committed results cannot be read or is empty."""

    exit_code = 3


def _sources(
    adapters: Sequence[str], stored: Sequence[Result], root: Path | None, allow_download: bool
) -> tuple[list[str], dict[str, str]]:
    """Return the names or sources of the results to check, and by name of the row the place of those checkpoints that
    do not lie where the committed results found them."""
    from tokbench.tokenizers.checkpoint_names import parse_placed
    from tokbench.tokenizers.registry import load_adapter

    wanted, sources = list[str](), dict[str, str]()
    for asked in adapters:
        placed = None if any(_matches(asked, result) for result in stored) else parse_placed(asked)
        name = asked if placed is None else placed.name or load_adapter(asked, "cpu", root, allow_download).name
        wanted.append(name)
        if placed is not None:
            sources[name] = asked
    return wanted, sources


def _matches(name: str, result: Result) -> bool:
    """Return whether a result belongs to the adapter with this name or source."""
    return name in (result.adapter, result.provenance["adapter"].get("source"))
