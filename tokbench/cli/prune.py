"""`tokbench prune`: measures accuracy and speed of token reduction in three kinds of models."""

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
    help="Comma-separated shares of tokens kept, in (0, 1] [default: 0.9,0.7,0.5,0.3; of a vlm 0.5,0.25,0.1,0.05].",
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
    controls. The model is a classifier, a detector or a vision-language model. A detector (focus_detr.d4_dense) needs
    images with boxes (--data scenes-128). A vision-language model (mini_vlm.base, hf:FOLDER) answers questions about
    the data sets scenes and scenes-heldout.

    The images of a classifier need labels: a Parquet file with an integer column `label`, or a folder, zip or tar with
    one folder per class. Folders must be named like the network's classes (ImageNet: WordNet ids) or listed in
    classes.txt; otherwise their number must equal the network's number of classes, and they are matched in sorted
    order. A subset of the classes is enough. --limit N takes an even sample of class folders, otherwise the first N
    images; they must not all have the same label, and a warning is printed if they cover few classes.

    Rows that are already measured are kept, so repeat the command to resume after an interruption. Timings whose
    control deviates by more than 3 %, which indicates other load on the machine, are repeated up to --tries times.

    For a pose lifter (--model h2ot.dense), METHOD is the name of another one, or `all`; the sequences are drawn, and
    --limit is their number.

    Exit status: 1 if a method failed (the others still run) or an image could not be read.
    """
    from tokbench.pruning.kinds import PruneRequest, kind_named, kind_of_model

    kind = kind_named(kind_of_model(model, root))
    if listing:
        click.echo("\n".join(kind.known(root)))
        return
    if not methods:
        raise UsageError("missing METHOD; see --list")
    from tokbench.pruning.benchmark import read_keeps
    from tokbench.pruning.pose import is_pose_lifter

    if is_pose_lifter(model, root):
        device = choose_device(device)
        _lift(methods, model, limit, _batch_sizes(batches), repetitions, tries, device, root, out)
        return

    keeps = read_keeps(keep or kind.keeps)
    chosen_device = choose_device(device)
    names = [name for given in methods for name in (kind.methods if given == "all" else (given,))]
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


def _lift(
    methods: tuple[str, ...],
    model: str,
    limit: int | None,
    batches: tuple[int, ...] | None,
    repetitions: int,
    tries: int,
    device: str,
    root: Path | None,
    out: Path,
) -> None:
    """Measure pose lifters; METHOD is the name of one, or `all`."""
    from tokbench.pruning import pose

    context = click.get_current_context()
    for option in ("data", "keep", "kernel", "round_to", "rates"):
        if context.get_parameter_source(option) is ParameterSource.COMMANDLINE:
            raise UsageError(
                f"--{option.replace('_', '-')} is not an option of pose lifters, whose sequences are drawn and whose "
                "frames are set in their TOML files; leave it out"
            )
    names = [name for given in methods for name in (pose.pose_lifters(root) if given == "all" else (given,))]
    config = pose.PoseConfig(limit or pose.SEQUENCES, (1, 32) if batches is None else batches, repetitions, tries)
    rows = []
    with stoppable(lambda: "nothing was saved; repeat the command"), progress_bar() as bar:
        benchmark = pose.PoseBenchmark(model, device, config, root)
        for row in benchmark.rows(list(dict.fromkeys(names)), bar):
            rows.append(row)
            say(f"{row.name}: {row.errors.mean():.1f} mm")
    say(f"wrote {benchmark.save(rows, out)}")
    click.echo(pose.markdown(rows, pose.pose_findings(rows, root)), nl=False)


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
