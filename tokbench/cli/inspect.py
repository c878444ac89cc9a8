"""`tokbench list`, `show`, `leaderboard` and `weights`: what is here. None of them imports torch."""

from __future__ import annotations

from pathlib import Path

import click

from tokbench.cli.options import Group, out_option, root_option, split_option


@click.command("list")
@click.argument("what", type=click.Choice(["adapters", "datasets", "metrics", "protocols"]))
@root_option
def list_(what: str, root: Path | None) -> None:
    """List adapters, datasets, metrics or protocols."""
    from tokbench.cli import listing

    for line in listing.LISTS[what](root):
        click.echo(line)


@click.command()
@click.argument("result", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--worst", type=click.IntRange(1, 200), help="Draw this many of the words or faces that suffered most.")
@click.option("--kind", help="Of which readings, as in words, faces or words_easyocr [default: all].")
@click.option("--data", help="Where the images are, if not the dataset of that name.")
@split_option
@click.option("--adapter", help="What made the images, if not the adapter of that name.")
@click.option(
    "--picture", type=click.Path(dir_okay=False, path_type=Path), default=Path("worst.png"), show_default=True
)
@root_option
def show(
    result: Path,
    worst: int | None,
    kind: str | None,
    data: str | None,
    split: str | None,
    adapter: str | None,
    picture: Path,
    root: Path | None,
) -> None:
    """Print one result file: its numbers with intervals, what was skipped, and how it was made.

    With --worst N, draw instead the N words or faces of it that suffered most: the original, the same only scaled, the
    reconstruction, and what was read.
    """
    from tokbench.cli import listing
    from tokbench.results.result import load

    found = load(result)
    if worst is None:
        click.echo(listing.show(found), nl=False)
        return
    from tokbench.data.dataset import open_dataset
    from tokbench.protocol.protocol import load_protocol
    from tokbench.report import worst_crops as drawing
    from tokbench.tokenizers.registry import load_adapter

    told = found.provenance
    shown = drawing.cases(found, kind)[:worst]
    size = None if told["data"]["own_size"] is None else told["data"]["width"]
    rules = load_protocol(told["protocol"]["name"])
    dataset = open_dataset(data or found.dataset, rules, size, told["data"]["limit"], root, split=split)
    sheet = drawing.picture(shown, load_adapter(adapter or found.adapter, root=root), dataset, seed=told["seed"])
    drawing.save(sheet, picture)
    click.echo(f"drew {len(shown)} to {picture}")


@click.command()
@out_option("The folder of results.")
def leaderboard(out: Path) -> None:
    """Rebuild every table (CSV and Markdown) from the result files, those of rate curves, and one of reported/."""
    from tokbench.errors import NoResults
    from tokbench.pruning.result import load_all
    from tokbench.pruning.table import write as pruned
    from tokbench.results import rate_curves, reported
    from tokbench.results.leaderboard import write

    made = []
    try:
        made += [*write(out), *rate_curves.write(out), *reported.write(out)]  # first: `write` removes all others
    except NoResults:
        if not load_all(out):
            raise
    for path in [*made, *pruned(out)]:
        click.echo(path)


@click.group(invoke_without_command=True, cls=Group)
@root_option
@click.pass_context
def weights(ctx: click.Context, root: Path | None) -> None:
    """For each frozen network and adapter: its weight file, its hash, where it was looked for, how to get it."""
    if ctx.invoked_subcommand is None:
        from tokbench.cli import listing

        click.echo("\n".join(listing.weights(root)))


@weights.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@root_option
def add(file: Path, root: Path | None) -> None:
    """Check FILE against the known hashes and put it in place."""
    from tokbench.cli import listing
    from tokbench.weights.registry import add as put

    click.echo(f"placed at {put(file, [source for _, _, source in listing.weight_files(root)])}")
