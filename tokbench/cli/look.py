"""`tokbench list`, `show`, `leaderboard` and `weights`: what is here. None of them imports torch."""

from __future__ import annotations

from pathlib import Path

import click

from tokbench.cli.options import Group, out_option, root_option


@click.command("list")
@click.argument("what", type=click.Choice(["adapters", "datasets", "metrics", "protocols"]))
@root_option
def list_(what: str, root: Path | None) -> None:
    """List adapters, datasets, metrics or protocols."""
    from tokbench import listing

    for line in listing.LISTS[what](root):
        click.echo(line)


@click.command()
@click.argument("result", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def show(result: Path) -> None:
    """Print one result file: its numbers with intervals, what was skipped, and how it was made."""
    from tokbench import listing
    from tokbench.result import load

    click.echo(listing.show(load(result)), nl=False)


@click.command()
@out_option("The folder of results.")
def leaderboard(out: Path) -> None:
    """Rebuild every table (CSV and Markdown) from the result files."""
    from tokbench.leaderboard import write

    for path in write(out):
        click.echo(path)


@click.group(invoke_without_command=True, cls=Group)
@root_option
@click.pass_context
def weights(ctx: click.Context, root: Path | None) -> None:
    """For each frozen network and adapter: its weight file, its hash, where it was looked for, how to get it."""
    if ctx.invoked_subcommand is None:
        from tokbench import listing

        click.echo("\n".join(listing.weights(root)))


@weights.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@root_option
def add(file: Path, root: Path | None) -> None:
    """Check FILE against the known hashes and put it in place."""
    from tokbench import listing
    from tokbench.weights import add as put

    click.echo(f"placed at {put(file, [source for _, _, source in listing.weight_files(root)])}")
