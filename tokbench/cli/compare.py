"""`tokbench compare`: two results against each other."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tokbench.cli.options import FILE


@click.command()
@click.argument("first", type=FILE, metavar="A.json")
@click.argument("second", type=FILE, metavar="B.json")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, one object a number.")
def compare(first: Path, second: Path, as_json: bool) -> None:
    """The paired difference of two results on the same images, with 95 % intervals and a verdict.

    Means over images are resampled together; Fréchet distances, KID and Inception Score are compared on the same random
    halves of the images, which lie beside the results, so no features are needed.
    """
    from tokbench.api.comparison import compare as compared
    from tokbench.results.markdown import context
    from tokbench.results.result import load

    ours = load(first)
    found = compared(ours, second)
    if as_json:
        click.echo(json.dumps([one.to_dict() for one in found.differences], indent=1))
        return
    click.echo(f"{context([ours])}\n")
    click.echo(found.to_markdown(), nl=False)
    if found.not_compared:
        click.echo(f"\nnot compared, since made in another way: {', '.join(found.not_compared)}")
