"""`tokbench eval`: tokenizers and images in, numbers out."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Literal

import click

from tokbench.cli.options import (
    batch_size_option,
    choose_device,
    data_option,
    device_option,
    download_option,
    limit_option,
    links_option,
    out_option,
    precision_option,
    progress_bar,
    protocol_option,
    reference_is_option,
    reference_option,
    root_option,
    say,
    size_option,
    stoppable,
)
from tokbench.errors import DataError, TokbenchError, UsageError


@click.command("eval")
@click.argument("adapters", metavar="ADAPTER...", nargs=-1, required=True)
@data_option
@click.option(
    "--metrics", "metric_names", help="Comma-separated names, or 'all' [default: see 'tokbench list metrics']."
)
@limit_option
@size_option
@protocol_option
@reference_option
@reference_is_option
@click.option("--task", type=click.Choice(["reconstruct"]), default="reconstruct", show_default=True)
@batch_size_option
@device_option
@precision_option
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of bootstrap intervals and of decoders that sample.",
)
@click.option("--skip-bad", is_flag=True, help="Unreadable images are listed, and do not make the exit status 1.")
@links_option
@click.option("--no-cache", is_flag=True, help="Read nothing from the cache and keep nothing there (no resuming).")
@download_option
@click.option("--json", "as_json", is_flag=True, help="Print to stdout nothing but a JSON list, one object an adapter.")
@root_option
@out_option("Where results are written.")
def eval_(
    adapters: tuple[str, ...],
    data: str,
    metric_names: str | None,
    limit: int | None,
    size: int | None,
    protocol: str,
    reference: Path | None,
    reference_is: str | None,
    task: str,
    batch_size: int,
    device: str | None,
    precision: Literal["float32", "bfloat16"],
    seed: int,
    skip_bad: bool,
    follow_links: bool,
    no_cache: bool,
    allow_download: bool,
    as_json: bool,
    root: Path | None,
    out: Path,
) -> None:
    """Evaluate tokenizers on images.

    ADAPTER is a name (tokbench list adapters), a path to an adapter folder, or images:DIR, diffusers:DIR_OR_ID,
    torchscript:DIR. Several adapters share one pass over the images. After an interruption the same command goes on
    where it was. Several processes share the images with: torchrun --nproc-per-node 4 -m tokbench eval ...

    Exit status: 0 when every metric asked for was computed or skipped with a reason, 1 for a failure or for images
    that cannot be read (without --skip-bad), 2 for wrong usage.
    """
    from tokbench import leaderboard, metrics
    from tokbench.protocol import load_protocol

    rules = load_protocol(protocol)
    chosen = metrics.choose(metric_names, rules)
    if reference_is and reference is None:
        raise UsageError("--reference-is says what made the file of --reference; give that too")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written ({error.strerror})") from error

    from tokbench.dataset import open_dataset
    from tokbench.evaluate import evaluate
    from tokbench.plugins import load_adapters
    from tokbench.ranks import ranks
    from tokbench.readers import Networks
    from tokbench.result import failure
    from tokbench.statistics import load_statistics
    from tokbench.weights import cache_dir

    with ranks() as mine:
        device = choose_device(device, mine.local)
        statistics = load_statistics(reference).assumed(reference_is) if reference else None
        dataset = open_dataset(data, rules, size, limit, root, follow_links)
        results, done = [], (0, len(dataset))

        def left() -> str:
            if no_cache:
                return "nothing is kept, as --no-cache asks"
            return f"{done[0]:,} of {done[1]:,} images were read; the same command goes on from what is finished"

        with redirect_stdout(sys.stderr), stoppable(left):  # what adapters print must not mix with the result
            loaded, failed = load_adapters(adapters, device, root, allow_download)
            try:
                with progress_bar(quiet=not mine.first) as bar:

                    def progress(what: str, count: int, total: int) -> None:
                        nonlocal done
                        done = (count, total) if what == "images" else done
                        bar(what, count, total)

                    if loaded:
                        results = evaluate(
                            loaded,
                            dataset,
                            chosen,
                            task=task,
                            networks=Networks(device, allow_download, precision),
                            statistics=statistics,
                            batch_size=batch_size,
                            seed=seed,
                            cache=None if no_cache else cache_dir(),
                            ranks=mine,
                            warn=say,
                            progress=progress,
                        )
            except DataError as error:
                failed |= dict.fromkeys([adapter.name for adapter in loaded], str(error))
    if not mine.first:
        for name, reason in failed.items():
            say(f"rank {mine.rank}: failed {name}: {reason}")
        sys.exit(1 if failed else 0)
    failed |= {result.adapter: result.error for result in results if result.error}
    good = [result for result in results if result.error is None]
    for result in good:
        try:
            path, replaced = result.save(out)
            changed = " (replaced: its data, protocol, code, weights or settings had changed)" if replaced else ""
            say(f"wrote {path}{changed}")
            if result.journal is not None:
                result.journal.discard()
        except TokbenchError as error:
            failed[result.adapter] = str(error)
    if as_json:
        made = {result.adapter: result.facts() for result in good}
        unmade = {name: failure(name, dataset.name, task, why, dataset.bad) for name, why in failed.items()}
        click.echo(leaderboard.to_json(list((unmade | made).values())))
    elif good:
        click.echo(f"{dataset.name}: {leaderboard.legend(good)}\n")
        click.echo(leaderboard.markdown(good), nl=False)
    _report(good, dataset.bad, failed)
    if failed or (dataset.bad and not skip_bad):
        sys.exit(1)


def _report(results: list[Any], bad: list[tuple[str, str]], failed: dict[str, str]) -> None:
    """On stderr: what was skipped and why (once for all adapters that share it), bad images, failures."""
    skipped: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for metric, reason in result.notes.items():
            skipped.setdefault((metric, reason), []).append(result.adapter)
    for (metric, reason), names in skipped.items():
        some = "" if len(names) == len(results) else f" for {', '.join(names)}"
        say(f"skipped {metric}{some}: {reason}")
    for name, reason in bad:
        say(f"bad image {name}: {reason.removeprefix(f'{name}: ')}")
    for name, reason in failed.items():
        say(f"failed {name}: {reason.removeprefix(f'{name}: ')}")
