"""`tokbench compare`: compares two results on the same images."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from tokbench.cli.options import FILE, say


@click.command()
@click.argument("first", type=FILE, metavar="A.json")
@click.argument("second", type=FILE, metavar="B.json")
@click.option(
    "--fail-if-worse",
    metavar="NUMBER[=AMOUNT],...",
    help="Exit with status 1 if B is worse than A in one of these numbers by more than AMOUNT, for example "
    "psnr,lpips=2% [default amount: the tolerance of tokbench check].",
)
@click.option("--json", "as_json", is_flag=True, help="Print only a JSON list to stdout, one object per metric.")
def compare(first: Path, second: Path, fail_if_worse: str | None, as_json: bool) -> None:
    """Compare two results on the same images, with paired 95 % intervals.

    For means over images, both results are resampled with the same images. Fréchet distances, KID and Inception Score
    are compared on the same random halves of the images; their values are stored beside the results, so no features are
    needed.

    Exit status with --fail-if-worse: 1 if a number is worse, whether or not its interval contains 0, because the images
    are the same; otherwise 3 if one of the numbers could not be compared; otherwise 0.
    """
    from tokbench.analysis.tolerances import parse_drops
    from tokbench.api.comparison import compare as paired
    from tokbench.results.markdown import context
    from tokbench.results.result import load

    drops = parse_drops(fail_if_worse, "--fail-if-worse") if fail_if_worse is not None else {}
    result = load(first)
    comparison = paired(result, second)
    if as_json:
        click.echo(json.dumps([difference.to_dict() for difference in comparison.differences], indent=1))
    else:
        click.echo(f"{context([result])}\n")
        click.echo(comparison.to_markdown(), nl=False)
        if comparison.not_compared:
            names = ", ".join(comparison.not_compared)
            click.echo(f"\nnot compared, because network, weights or settings differ: {names}")
    worse, absent = comparison.worse(drops), [number for number in drops if number not in comparison.verdicts]
    if worse:
        say(f"worse in {comparison.second}: {', '.join(worse)}")
    if absent:
        say(f"could not be compared: {', '.join(absent)}")
    if worse or absent:
        sys.exit(1 if worse else 3)
