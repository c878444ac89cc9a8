"""`tokbench prune`: measures accuracy and speed of token reduction inside a classifier."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from tokbench.pruning.result import PruningRow


@click.command()
@click.argument("methods", metavar="METHOD...", nargs=-1)
@click.option("--model", default="vit_tiny_imagenet.d12", show_default=True, help="Network name, or timm:NAME[@FILE].")
@click.option(
    "--keep",
    default="0.9,0.7,0.5,0.3",
    show_default=True,
    help="Comma-separated shares of tokens kept per stage, in (0, 1].",
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
    keep: str,
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

    METHOD is a name printed by --list; 'all' selects every method that needs no training, and the controls.

    The images need labels: a Parquet file with an integer column `label`, or a folder, zip or tar with one folder per
    class. Folders must be named like the network's classes (ImageNet: WordNet ids) or listed in classes.txt; otherwise
    their number must equal the network's number of classes, and they are matched in sorted order. A subset of the
    classes is enough. --limit N takes an even sample of class folders, otherwise the first N images; they must not all
    have the same label, and a warning is printed if they cover few classes.

    Rows that are already measured are kept, so repeat the command to resume after an interruption. Timings whose
    control deviates by more than 3 %, which indicates other load on the machine, are repeated up to --tries times.

    For a pose lifter (--model h2ot.dense), METHOD is the name of another one, or `all`; the sequences are drawn, and
    --limit is their number.

    Exit status: 1 if a method failed (the others still run) or an image could not be read.
    """
    from tokbench.pruning.candidates import CONTROLS, known
    from tokbench.pruning.methods import METHODS

    if listing:
        click.echo("\n".join(known(root)))
        return
    if not methods:
        raise UsageError("missing METHOD; see --list")
    from tokbench.pruning.pose import is_pose_lifter

    if is_pose_lifter(model, root):
        chosen = choose_device(device)
        _lift(methods, model, limit, _batch_sizes(batches, chosen), repetitions, tries, chosen, root, out)
        return
    from tokbench.pruning import table
    from tokbench.pruning.benchmark import BenchmarkConfig, PruningBenchmark, read_keeps
    from tokbench.pruning.models import load_classifier, open_labelled
    from tokbench.pruning.result import labels_text

    keeps = read_keeps(keep)
    chosen_device = choose_device(device)
    names = [name for given in methods for name in ((*METHODS, *CONTROLS) if given == "all" else (given,))]
    sizes = _batch_sizes(batches, chosen_device)
    classifier = load_classifier(model, chosen_device, root, allow_download)
    images = open_labelled(data, classifier, limit, root, reading)
    say_left_out(images.dataset.left_out)
    say(f"labels: {labels_text(images.labels.facts(images.dataset.names))}")
    config = BenchmarkConfig("eager" if kernel == "eager" else "sdpa", sizes, repetitions, round_to, rates, tries)
    failed, results = False, {}
    rows = 0
    with stoppable(lambda: f"{rows} rows were saved; repeat the command to resume"), progress_bar() as bar:
        benchmark = PruningBenchmark(
            classifier, images, chosen_device, config, root, lambda text: say(f"warning: {text}")
        )
        for name in dict.fromkeys(names):
            try:
                for result, key in benchmark.run(name, keeps, out, bar):
                    results[result.path], rows = result, rows + 1
                    say(f"{name} {key}: {_summary(result.rows[key])}")
            except (UsageError, MissingWeights) as error:
                say(f"failed {name}: {str(error).removeprefix(f'{name}: ')}")
                failed = True
    for image, reason in images.dataset.unreadable:
        say(f"unreadable image {image}: {reason.removeprefix(f'{image}: ')}")
    if results:
        members = list(results.values())
        click.echo(f"{table.legend(members)}{table.markdown(members)}", nl=False)
    if failed or images.dataset.unreadable:
        sys.exit(1)


def _lift(
    methods: tuple[str, ...],
    model: str,
    limit: int | None,
    batches: tuple[int, ...],
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
    config = pose.PoseConfig(limit or pose.SEQUENCES, batches, repetitions, tries)
    rows = []
    with stoppable(lambda: "nothing was saved; repeat the command"), progress_bar() as bar:
        benchmark = pose.PoseBenchmark(model, device, config, root)
        for row in benchmark.rows(list(dict.fromkeys(names)), bar):
            rows.append(row)
            say(f"{row.name}: {row.errors.mean():.1f} mm")
    say(f"wrote {benchmark.save(rows, out)}")
    click.echo(pose.markdown(rows, pose.pose_findings(rows, root)), nl=False)


def _summary(row: PruningRow) -> str:
    from tokbench.pruning.table import faster

    times = [f"batch {timing.batch}: {faster(timing.speedup)}" for timing in row.pace]
    return ", ".join([f"top-1 {100 * row.top1.value:.1f} %", *times])


def _batch_sizes(text: str | None, device: str) -> tuple[int, ...]:
    if text is None:
        return (1, 32) if device == "cpu" else (1, 32, 128)
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--batches {text}: expected integers, for example 1,32") from error
    if min(sizes) < 0 or (0 in sizes and len(sizes) > 1):
        raise UsageError(f"--batches {text}: expected batch sizes of at least 1, or 0 alone to disable timing")
    return () if sizes == (0,) else sizes
