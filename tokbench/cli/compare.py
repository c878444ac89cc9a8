"""`tokbench compare`: compares two results on the same images."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tokbench.cli.options import FILE


@click.command()
@click.argument("first", type=FILE, metavar="A.json")
@click.argument("second", type=FILE, metavar="B.json")
@click.option("--json", "as_json", is_flag=True, help="Print only a JSON list to stdout, one object per metric.")
def compare(first: Path, second: Path, as_json: bool) -> None:
    """Compare two results on the same images, with paired 95 % intervals.

    For means over images, both results are resampled with the same images. Fréchet distances, KID and Inception Score
    are compared on the same random halves of the images; their values are stored beside the results, so no features are
    needed.
    """
    from tokbench.api.comparison import compare as paired
    from tokbench.results.markdown import context
    from tokbench.results.result import load

    result = load(first)
    comparison = paired(result, second)
    if as_json:
        click.echo(json.dumps([difference.to_dict() for difference in comparison.differences], indent=1))
        return
    click.echo(f"{context([result])}\n")
    click.echo(comparison.to_markdown(), nl=False)
    if comparison.not_compared:
        click.echo(f"\nnot compared, because network, weights or settings differ: {', '.join(comparison.not_compared)}")
