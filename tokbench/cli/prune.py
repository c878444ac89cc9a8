"""`tokbench prune`: token reduction inside a classifier, its accuracy and its time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokbench.api.device import choose_device
from tokbench.cli.options import (
    data_option,
    device_option,
    download_option,
    limit_option,
    out_option,
    progress_bar,
    root_option,
    say,
    say_left_out,
    split_option,
    stoppable,
)
from tokbench.errors import MissingWeights, UsageError

if TYPE_CHECKING:
    from tokbench.pruning.result import PruningRow


@click.command()
@click.argument("methods", metavar="METHOD...", nargs=-1)
@click.option("--model", default="vit_tiny_imagenet.d12", show_default=True, help="A network, or timm:NAME[@FILE].")
@click.option("--keep", default="0.9,0.7,0.5,0.3", show_default=True, help="Shares of tokens, in (0, 1].")
@data_option
@split_option
@limit_option
@click.option("--batches", help="Batch sizes for time, 0 for none [default: 1,32,128; on a CPU 1,32].")
@click.option("--repetitions", type=click.IntRange(min=30), default=30, show_default=True, help="Timings of each.")
@click.option(
    "--tries", type=click.IntRange(min=1), default=3, show_default=True, help="Of times whose control is off by 3 %."
)
@click.option(
    "--kernel", type=click.Choice(["sdpa", "eager"]), default="sdpa", show_default=True, help="Of reduced attention."
)
@click.option(
    "--round-to", type=click.IntRange(min=1), default=1, show_default=True, help="Multiples for token counts."
)
@click.option("--rates", help="For diffrate: a JSON file with lists prune and merge, or deit_s (the authors').")
@device_option
@download_option
@root_option
@out_option("Where facts are written.")
@click.option("--list", "listing", is_flag=True, help="Print what METHOD may be, and end.")
def prune(
    methods: tuple[str, ...],
    model: str,
    keep: str,
    data: str,
    split: str | None,
    limit: int | None,
    batches: str | None,
    repetitions: int,
    tries: int,
    kernel: str,
    round_to: int,
    rates: str | None,
    device: str | None,
    allow_download: bool,
    root: Path | None,
    out: Path,
    listing: bool,
) -> None:
    """Measure token-reduction methods: accuracy against the whole network on the same images, FLOPs and real time.

    The images need labels: Parquet with a column `label` of integers, or a folder, zip or tar with a folder for each
    class (named as the network's classes, as ImageNet's WordNet ids; or listed in classes.txt; or as many as the
    network has classes, then in sorted order). Fewer classes than the network has are enough. --limit N takes the first
    N images: refused where these are of one class alone, warned of where they are of few.

    METHOD: see --list; 'all' is every method that needs no training, with the controls. Rows that are measured already
    are not measured again, so after an interruption the same command goes on; but times whose control is off are,
    --tries times in all, since something else was at work on the machine. Exit status: 1 where a method could not be
    run (the others are), or an image could not be read.
    """
    from tokbench.pruning.candidates import CONTROLS, known
    from tokbench.pruning.methods import METHODS

    if listing:
        click.echo("\n".join(known(root)))
        return
    if not methods:
        raise UsageError("name a METHOD, or give --list")
    from tokbench.pruning import table
    from tokbench.pruning.benchmark import BenchmarkConfig, PruningBenchmark, read_keeps
    from tokbench.pruning.models import load_subject, open_labelled
    from tokbench.pruning.result import said_of_labels

    keeps = read_keeps(keep)
    where = choose_device(device)
    names = [name for given in methods for name in ((*METHODS, *CONTROLS) if given == "all" else (given,))]
    sizes = _sizes(batches, where)
    subject = load_subject(model, where, root, allow_download)
    images = open_labelled(data, subject, limit, root, split)
    say_left_out(images.dataset.left_out)
    say(f"labels: {said_of_labels(images.labels.facts(images.dataset.names))}")
    plan = BenchmarkConfig("eager" if kernel == "eager" else "sdpa", sizes, repetitions, round_to, rates, tries)
    failed, found = False, {}
    rows = 0
    with stoppable(lambda: f"{rows} rows are kept; the same command goes on from there"), progress_bar() as bar:
        bench = PruningBenchmark(subject, images, where, plan, root, lambda text: say(f"warning: {text}"))
        for name in dict.fromkeys(names):
            try:
                for reduced, key in bench.run(name, keeps, out, bar):
                    found[reduced.path], rows = reduced, rows + 1
                    say(f"{name} {key}: {_short(reduced.rows[key])}")
            except (UsageError, MissingWeights) as error:
                say(f"failed {name}: {str(error).removeprefix(f'{name}: ')}")
                failed = True
    for image, reason in images.dataset.bad:
        say(f"bad image {image}: {reason.removeprefix(f'{image}: ')}")
    if found:
        members = list(found.values())
        click.echo(f"{table.legend(members)}{table.markdown(members)}", nl=False)
    if failed or images.dataset.bad:
        sys.exit(1)


def _short(row: PruningRow) -> str:
    from tokbench.pruning.table import faster

    times = [f"batch {one.batch}: {faster(one.speedup)}" for one in row.pace]
    return ", ".join([f"top-1 {100 * row.top1.value:.1f} %", *times])


def _sizes(text: str | None, device: str) -> tuple[int, ...]:
    if text is None:
        return (1, 32) if device == "cpu" else (1, 32, 128)
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--batches {text}: give whole numbers, as in 1,32") from error
    if min(sizes) < 0 or (0 in sizes and len(sizes) > 1):
        raise UsageError(f"--batches {text}: give sizes from 1, or 0 alone for no timing")
    return () if sizes == (0,) else sizes
