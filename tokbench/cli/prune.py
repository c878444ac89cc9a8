"""`tokbench prune`: measures accuracy and speed of token reduction in several kinds of models."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from click.core import ParameterSource

from tokbench.api.device import choose_device
from tokbench.cli.options import (
    data_option,
    device_option,
    download_option,
    limit_option,
    out_option,
    progress_bar,
    reading_options,
    root_option,
    say,
    say_left_out,
    stoppable,
)
from tokbench.data.reading import ReadOptions
from tokbench.errors import MissingWeights, UsageError


@click.command()
@click.argument("methods", metavar="METHOD...", nargs=-1)
@click.option(
    "--model", default="vit_tiny_imagenet.d12", show_default=True, help="Network name, timm:NAME[@FILE], or hf:FOLDER."
)
@click.option(
    "--keep",
    help="Comma-separated shares of tokens kept, in (0, 1] [default: 0.9,0.7,0.5,0.3; of a vlm 0.5,0.25,0.1,0.05; of "
    "clips 0.25,0.125,0.0625].",
)
@data_option
@reading_options("first")
@limit_option
@click.option("--batches", help="Batch sizes for timing; 0 disables timing [default: 1,32,128; on a CPU 1,32].")
@click.option(
    "--repetitions", type=click.IntRange(min=30), default=30, show_default=True, help="Timings per batch size."
)
@click.option(
    "--tries",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Maximum number of timing runs when the control timing deviates by more than 3 %.",
)
@click.option(
    "--kernel",
    type=click.Choice(["sdpa", "eager"]),
    default="sdpa",
    show_default=True,
    help="Attention kernel of the reduced network.",
)
@click.option(
    "--round-to",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Round token counts up to a multiple of this number.",
)
@click.option("--rates", help="For diffrate: JSON file with lists prune and merge, or deit_s for the authors' rates.")
@device_option
@download_option
@root_option
@out_option("Folder for results.")
@click.option("--list", "listing", is_flag=True, help="List the available methods and exit.")
def prune(
    methods: tuple[str, ...],
    model: str,
    keep: str | None,
    data: str,
    reading: ReadOptions,
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
    """Measure token-reduction methods: accuracy relative to the full network, FLOPs and wall-clock time.

    METHOD is a name printed by --list with the same --model; 'all' selects every method that needs no training, and the
    controls. The model is a classifier, a detector, a classifier of clips, a vision-language model or a pose lifter. A
    detector (focus_detr.d4_dense) needs images with boxes (--data scenes-128), and a classifier of clips
    (centerclip.d4, trajvit.patches) clips with labels (--data sprites). A vision-language model (mini_vlm.base,
    hf:FOLDER) answers questions about the data sets scenes and scenes-heldout. A pose lifter (h2ot.dense) is compared
    with other ones, 'all' of them or those that are named, on sequences that are drawn; --limit is their number, and
    --data and --keep do not apply.

    The images of a classifier need labels: a Parquet file with an integer column `label`, or a folder, zip or tar with
    one folder per class. Folders must be named like the network's classes (ImageNet: WordNet ids) or listed in
    classes.txt; otherwise their number must equal the network's number of classes, and they are matched in sorted
    order. A subset of the classes is enough. --limit N takes an even sample of class folders, otherwise the first N
    images; they must not all have the same label, and a warning is printed if they cover few classes.

    Rows that are already measured are kept, so repeat the command to resume after an interruption. Timings whose
    control deviates by more than 3 %, which indicates other load on the machine, are repeated up to --tries times.

    Exit status: 1 if a method failed (the others still run) or an image could not be read.
    """
    from tokbench.pruning.kind_names import kind_of_model
    from tokbench.pruning.kinds import kind_named, refuse_unused
    from tokbench.pruning.request import PruneRequest

    kind = kind_named(kind_of_model(model, root))
    if listing:
        click.echo("\n".join(kind.known(root)))
        return
    if not methods:
        raise UsageError("missing METHOD; see --list")
    from tokbench.pruning.benchmark import read_keeps

    context = click.get_current_context()
    refuse_unused(kind, (name for name in context.params if _given(context, name)))
    chosen_keep = keep or kind.keeps
    keeps = read_keeps(chosen_keep) if chosen_keep else []
    chosen_device = choose_device(device)
    names = [name for given in methods for name in (kind.methods(model, root) if given == "all" else (given,))]
    request = PruneRequest(
        model, data, chosen_device, root, limit, reading, _batch_sizes(batches), repetitions, tries, kernel, round_to,
        rates, allow_download,
    )  # fmt: skip
    benchmark = kind.open(request, say)
    say_left_out(benchmark.dataset.left_out)
    failed, results = False, {}
    rows = 0
    with stoppable(lambda: f"{rows} rows were saved; repeat the command to resume"), progress_bar() as bar:
        for name in dict.fromkeys([*benchmark.controls, *names]):
            try:
                for result, key in benchmark.run(name, keeps, out, bar):
                    results[result.path], rows = result, rows + 1
                    say(f"{name} {key}: {kind.summary(result.rows[key])}")
            except (UsageError, MissingWeights) as error:
                say(f"failed {name}: {str(error).removeprefix(f'{name}: ')}")
                failed = True
    for image, reason in benchmark.dataset.unreadable:
        say(f"unreadable image {image}: {reason.removeprefix(f'{image}: ')}")
    if results:
        members = list(results.values())
        click.echo(f"{kind.table.legend(members)}{kind.table.markdown(members)}", nl=False)
    if failed or benchmark.dataset.unreadable:
        sys.exit(1)


def _given(context: click.Context, name: str) -> bool:
    """Return whether an argument comes from the command line."""
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _batch_sizes(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--batches {text}: expected integers, for example 1,32") from error
    if min(sizes) < 0 or (0 in sizes and len(sizes) > 1):
        raise UsageError(f"--batches {text}: expected batch sizes of at least 1, or 0 alone to disable timing")
    return () if sizes == (0,) else sizes
