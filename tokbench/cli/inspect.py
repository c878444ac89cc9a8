"""`tokbench list`, `show`, `leaderboard` and `weights`. Only `show --worst` imports torch."""

from __future__ import annotations

from pathlib import Path

import click

from tokbench.cli.options import Group, out_option, reading_options, root_option, say
from tokbench.cli.tables import Form, TablePrinter, format_option, print_lines
from tokbench.data.reading import ReadOptions
from tokbench.errors import UsageError
from tokbench.metric_names import kind_of_task


@click.command("list")
@click.argument("what", type=click.Choice(["adapters", "datasets", "metrics", "protocols"]))
@click.option("--family", help="With adapters: list only this family, for example jpeg or kmeans.")
@click.option("--trained", is_flag=True, help="With adapters: list only networks that have trained weights here.")
@click.option("--all", "every", is_flag=True, help="With adapters: also list those that cannot run here, and why.")
@click.option("--details", is_flag=True, help="With adapters: list quantizer, training paradigm and domain instead.")
@root_option
def list_(what: str, family: str | None, trained: bool, every: bool, details: bool, root: Path | None) -> None:
    """List the available adapters, datasets, metrics or protocols.

    An adapter is listed if it can run here, that is, if its weights and packages are on this machine.
    """
    from tokbench.cli import listing

    if what == "adapters":
        lines = (listing.adapter_details if details else listing.adapters)(root, family, trained, every)
    elif family or trained or every or details:
        raise UsageError("--family, --trained, --all and --details are options of 'tokbench list adapters'")
    else:
        lines = listing.LISTS[what](root)
    click.echo("\n".join(lines))


@click.command()
@click.argument("result", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--worst",
    type=click.IntRange(1, 200),
    help="Draw the N words or faces with the largest drop in score, or, for tiles of a decoder, the N images with the "
    "worst tile borders.",
)
@click.option("--kind", help="With --worst: kind of crops, for example words, faces or words_easyocr [default: all].")
@click.option("--data", help="With --worst: path of the images [default: the dataset named in the result].")
@reading_options()
@click.option("--adapter", help="With --worst: adapter to reconstruct with [default: the adapter named in the result].")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("worst.png"),
    show_default=True,
    help="With --worst: image file to write.",
)
@root_option
def show(
    result: Path,
    worst: int | None,
    kind: str | None,
    data: str | None,
    reading: ReadOptions,
    adapter: str | None,
    picture: Path,
    root: Path | None,
) -> None:
    """Print one result file: metrics with intervals, skipped metrics, and provenance.

    With --worst N, draw instead the N words or faces with the largest drop in score: the original, the resized
    original, the reconstruction, and the recognized text. For a result of --task decode with tiles, draw the images
    with the worst tile borders: the original, the image of the decoder itself, and that of the tiles.
    """
    from tokbench.cli import listing
    from tokbench.results.result import load

    loaded = load(result)
    if worst is None:
        click.echo(listing.show(loaded), nl=False)
        return
    from tokbench.analysis.image_plan import dataset_of
    from tokbench.report import worst_crops, worst_seams
    from tokbench.tokenizers.registry import load_adapter

    provenance = loaded.provenance
    seams = kind_of_task(loaded.task) == "decode"
    crops = [] if seams else worst_crops.cases(loaded, kind)[:worst]
    dataset = dataset_of(loaded, data, root, reading)
    source = provenance["adapter"].get("source", loaded.adapter)  # the name of a row need not be that of an adapter
    model, seed = load_adapter(adapter or source, root=root), provenance["seed"]
    if seams:
        sheet = worst_seams.picture(loaded, worst, model, dataset, seed=seed)
    else:
        sheet = worst_crops.picture(crops, model, dataset, seed=seed)
    worst_crops.save(sheet, picture)
    click.echo(f"wrote the worst {'tile borders' if seams else f'{len(crops)} crops'} to {picture}")


@click.command()
@out_option("Folder of results.")
@format_option
def leaderboard(out: Path, form: Form | None) -> None:
    """Rebuild all leaderboard tables (CSV and Markdown) from the result files, and print them.

    Tables of rate curves, of tokens that carry meaning, of pruning results and of reported/ are rebuilt too, but not
    printed. With --format csv, one
    table with the rows of all tables is printed.
    """
    from tokbench.errors import NoResults
    from tokbench.pruning.kind_names import KINDS
    from tokbench.pruning.leaderboards import write as write_pruning
    from tokbench.pruning.result import load_all
    from tokbench.results import rate_curves, reported, semantic_table
    from tokbench.results.floors import Floors
    from tokbench.results.leaderboard import delete_stale, groups, read_all, write
    from tokbench.results.result import Result

    written: list[Path] = []
    found: list[Result] = []
    try:
        found = read_all(out)
        written += [*write(out, found), *rate_curves.write(out), *semantic_table.write(out, found)]
        written += reported.write(out)
    except NoResults:
        if not any(load_all(out, kind) for kind in KINDS):
            raise
    written += write_pruning(out)
    delete_stale(out, written)  # last: an interrupted command loses no table
    for path in written:
        say(f"wrote {path}")
    printer = TablePrinter(form, Floors(found))
    for name, results in groups(found).items():
        printer.add(name, results)
    printer.finish()


@click.group(invoke_without_command=True, cls=Group)
@click.option("--missing", is_flag=True, help="List only networks and adapters without any of their files here.")
@click.option("--details", is_flag=True, help="Print the SHA-256, the path and the source of every file.")
@root_option
@click.pass_context
def weights(ctx: click.Context, missing: bool, details: bool, root: Path | None) -> None:
    """Show the weight files of all frozen networks and adapters, one line per file."""
    if ctx.invoked_subcommand is not None:
        return
    from tokbench.cli import listing

    if details:
        if missing:
            raise UsageError("--details and --missing exclude each other")
        click.echo("\n".join(listing.weight_details(root)))
        return
    print_lines(*listing.weight_table(root, missing))
    say("hashes and sources: tokbench weights --details; add a file with: tokbench weights add FILE")


@weights.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@root_option
def add(file: Path, root: Path | None) -> None:
    """Check FILE against the known hashes and copy it to the weights folder."""
    from tokbench.cli import listing
    from tokbench.weights.registry import add as add_file

    click.echo(f"copied to {add_file(file, [source for _, _, source in listing.weight_files(root)])}")
