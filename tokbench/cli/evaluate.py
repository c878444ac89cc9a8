"""`tokbench eval`: tokenizers and images in, numbers out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click
from click.core import ParameterSource

from tokbench.api.device import choose_device
from tokbench.cli.options import (
    batch_size_option,
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
    reference_mismatch_option,
    reference_option,
    root_option,
    say,
    say_left_out,
    size_option,
    split_option,
    stoppable,
)
from tokbench.errors import DataError, TokbenchError, UsageError
from tokbench.metric_names import ANCHORS, Anchor, defaults, measurable
from tokbench.protocol.suites import SUITES


@click.command("eval")
@click.argument("adapters", metavar="ADAPTER...", nargs=-1, required=True)
@data_option
@split_option
@click.option(
    "--metrics", "metric_names", help="Comma-separated names, or 'all' [default: see 'tokbench list metrics']."
)
@click.option(
    "--suite",
    type=click.Choice(list(SUITES)),
    help="Size, protocol, metrics and (unless --data names others, separated by commas) the data of a suite.",
)
@click.option("--faithful", is_flag=True, help="With --suite: also what only its authors' code does (JPEG files).")
@limit_option
@size_option
@protocol_option
@reference_option
@reference_is_option
@reference_mismatch_option
@click.option(
    "--task",
    type=click.Choice(["reconstruct", "truncate", "perturb", "generate"]),
    default="reconstruct",
    show_default=True,
    help="What is decoded: all tokens, only the first ones, tokens replaced by near misses (pFID), or tokens that a "
    "generator draws (gFID).",
)
@click.option("--tokens", help="With truncate: how many, as in 4,8 [default: 1, 2, 4 ... all].")
@click.option(
    "--anchor",
    type=click.Choice(ANCHORS),
    help="With perturb: near to the encoder's latent or to the chosen code [default: latent].",
)
@click.option(
    "--cfg",
    type=click.FloatRange(min=0),
    help="With generate: the scale of classifier-free guidance, 1 for none [default: each generator's own].",
)
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
@click.pass_context
def eval_(
    ctx: click.Context,
    adapters: tuple[str, ...],
    data: str,
    split: str | None,
    metric_names: str | None,
    suite: str | None,
    faithful: bool,
    limit: int | None,
    size: int | None,
    protocol: str,
    reference: Path | None,
    reference_is: str | None,
    reference_mismatch: str | None,
    task: str,
    tokens: str | None,
    anchor: Anchor | None,
    cfg: float | None,
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

    With --task generate, ADAPTER is a generator or images:SAMPLES (a folder, zip, tar, Parquet file or ADM's npz), the
    data (or a statistics file, --data FILE.npz) what samples are compared with, unpaired, and --limit how many samples.

    Exit status: 0 when every metric asked for was computed or skipped with a reason, 1 for a failure or for images
    that cannot be read (without --skip-bad), 2 for wrong usage.
    """
    from tokbench.metrics import registry
    from tokbench.protocol.protocol import load_protocol
    from tokbench.results import leaderboard, markdown

    counts, listed = _counts(tokens), metric_names not in (None, "all")
    for option, value, wanted in (
        ("--tokens", tokens, "truncate"),
        ("--anchor", anchor, "perturb"),
        ("--cfg", cfg, "generate"),
    ):
        if value is not None and task != wanted:
            raise UsageError(f"{option} is for --task {wanted}")
    given = {
        name for name in ("data", "size", "protocol") if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    names = [data]
    if suite:
        if taken := given & {"size", "protocol"}:
            raise UsageError(f"--suite {suite} has its own {' and '.join(sorted(taken))}; leave that out")
        chosen_suite = SUITES[suite]
        names = [name.strip() for name in data.split(",")] if "data" in given else list(chosen_suite.data)
        size, protocol = chosen_suite.size, chosen_suite.faithful if faithful else chosen_suite.protocol
        metric_names = metric_names or ",".join(chosen_suite.metrics)
        if task == "generate":
            raise UsageError(f"--suite {suite} is of reconstructions; leave it out with --task generate")
    elif faithful:
        raise UsageError("--faithful says how a suite is run; give --suite too")
    rules = load_protocol(protocol)
    if task == "perturb":
        asked = ",".join(defaults("perturb")) if metric_names is None else metric_names
        chosen = measurable(registry.choose(asked, rules), strict=listed)
    else:
        chosen = registry.choose_for(task == "generate", metric_names, rules)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written ({error.strerror})") from error

    from tokbench.data.dataset import open_dataset
    from tokbench.data.stream import ImageStream
    from tokbench.evaluation.config import Context, EvalConfig
    from tokbench.evaluation.distributed import ranks
    from tokbench.evaluation.evaluate import evaluate
    from tokbench.evaluation.sample_plan import slots, statistics_of
    from tokbench.evaluation.tasks import RECONSTRUCT, Generate, Perturb, Truncate
    from tokbench.extractors.pool import ExtractorPool
    from tokbench.metrics.fid_statistics import load_statistics
    from tokbench.paths import cache_dir
    from tokbench.results.result import Result, failure
    from tokbench.tokenizers.builtin.images import ImageFolder
    from tokbench.tokenizers.registry import load_adapters

    doing = {
        "truncate": Truncate(counts), "perturb": Perturb(anchor or "latent"), "generate": Generate(cfg)
    }.get(task, RECONSTRUCT)  # fmt: skip

    def measured(
        loaded: list[Any], dataset: ImageStream, networks: ExtractorPool, mine: Any
    ) -> tuple[list[Result], dict[_Key, str]]:
        """One dataset's results, and why there are none."""
        done = (0, len(dataset))

        def left() -> str:
            if no_cache:
                return "nothing is kept, as --no-cache asks"
            return f"{done[0]:,} of {done[1]:,} images were read; the same command goes on from what is finished"

        with redirect_stdout(sys.stderr), stoppable(left), progress_bar(quiet=not mine.first) as bar:

            def progress(what: str, count: int, total: int) -> None:
                nonlocal done
                done = (count, total) if what == "images" else done
                bar(what, count, total)

            try:
                context = Context(None if no_cache else cache_dir(), mine, networks, warn=say, progress=progress)
                results = evaluate(loaded, dataset, config, context)
            except DataError as error:
                return [], {(adapter.name, doing.name): str(error) for adapter in loaded}
        return results, {(result.adapter, result.task): result.error for result in results if result.error}

    def keep(results: list[Result]) -> dict[_Key, str]:
        """Write results; of those that cannot be written, why."""
        unwritten = {}
        for result in results:
            try:
                path, replaced = result.save(out)
                say(f"wrote {path}{f' (replaced an earlier result: {replaced})' if replaced else ''}")
                if result.journal is not None:
                    result.journal.discard()
            except TokbenchError as error:
                unwritten[result.adapter, result.task] = str(error)
        return unwritten

    facts: list[dict[str, Any]] = []
    broken = False
    with ranks() as mine:
        device = choose_device(device, mine.local)
        if doing.paired:
            statistics = load_statistics(reference) if reference else None
        else:
            statistics = statistics_of(data, "data" in given, reference)
        if reference_is or reference_mismatch:
            if statistics is None:
                raise UsageError("--reference-is and --reference-mismatch are about a statistics file; give that too")
            statistics = statistics.assumed(reference_is).allowing(reference_mismatch)
        streams: list[ImageStream] = []
        if doing.paired:  # before adapters are loaded, which can take long
            streams = [open_dataset(name, rules, size, limit, root, follow_links, split) for name in names]
        with redirect_stdout(sys.stderr):  # what adapters print must not mix with the result
            loaded, broken_ones = load_adapters(adapters, device, root, allow_download)
        if not doing.paired:
            references = partial(open_dataset, data, rules, size, None, root, follow_links, split)
            streams = [slots(data, rules, references, limit, split, statistics, loaded)]
        folders = [adapter.model.left_out for adapter in loaded if isinstance(adapter.model, ImageFolder)]
        for left_out in (*(stream.summary().left_out for stream in streams), *folders):
            if mine.first:
                say_left_out(left_out)
        unloaded = {(name, doing.name): reason for name, reason in broken_ones.items()}
        networks = ExtractorPool(device, allow_download, precision)
        config = EvalConfig(tuple(chosen), doing, batch_size, seed, device, precision, statistics)
        for dataset in streams:
            results, failed = measured(loaded, dataset, networks, mine) if loaded else ([], {})
            failed = unloaded | failed
            if not mine.first:
                for key, reason in failed.items():
                    say(f"rank {mine.rank}: failed {_called(key)}: {reason}")
                broken = broken or bool(failed)
                continue
            good = [result for result in results if result.error is None]
            bad = dataset.summary().bad
            failed |= keep(good)
            if as_json:
                made = {(result.adapter, result.task): result.to_dict() for result in good}
                unmade = {key: failure(key[0], dataset.name, key[1], why, bad) for key, why in failed.items()}
                facts += (unmade | made).values()
            elif good:
                tasks = list(dict.fromkeys(result.task for result in good))
                for name in tasks:
                    rows = [result for result in good if result.task == name]
                    named = dataset.name if name == RECONSTRUCT.name else f"{dataset.name}, {name}"
                    click.echo(f"{named}: {markdown.legend(rows)}\n")
                    click.echo(markdown.markdown(rows), nl=dataset is not streams[-1] or name != tasks[-1])
            seen = not as_json and sys.stdout.isatty() and sys.stderr.isatty()  # below the table, on the same terminal
            _report(good, bad, failed, warnings=not seen)
            broken = broken or bool(failed) or bool(bad and not skip_bad)
    if as_json and mine.first:
        click.echo(leaderboard.to_json(facts))
    if broken:
        sys.exit(1)


_Key = tuple[str, str]
"""An adapter and a task, which have one result on a dataset."""


def _counts(text: str | None) -> tuple[int, ...] | None:
    """`4,8` as (4, 8), rising, each once. Raises UsageError."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and int(part) for part in parts):
        raise UsageError(f"--tokens {text}: give how many of the first tokens, as in 4,8")
    return tuple(sorted({int(part) for part in parts}))


def _called(key: _Key) -> str:
    name, task = key
    return name if task == "reconstruct" else f"{name} ({task})"


def _report(results: list[Any], bad: Sequence[tuple[str, str]], failed: dict[_Key, str], warnings: bool) -> None:
    """On stderr: warnings, what was skipped and why (once for all adapters that share it), bad images, failures."""
    for result in results:
        for warning in result.warnings if warnings else ():
            say(f"warning {_called((result.adapter, result.task))}: {warning.text}")
    skipped: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for metric, reason in result.notes.items():
            skipped.setdefault((metric, reason), []).append(_called((result.adapter, result.task)))
    for (metric, reason), names in skipped.items():
        some = "" if len(names) == len(results) else f" for {', '.join(names)}"
        say(f"skipped {metric}{some}: {reason}")
    for name, reason in bad:
        say(f"bad image {name}: {reason.removeprefix(f'{name}: ')}")
    for key, reason in failed.items():
        say(f"failed {_called(key)}: {reason.removeprefix(f'{key[0]}: ')}")
