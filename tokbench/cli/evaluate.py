"""`tokbench eval`: evaluates tokenizers on images and writes results."""

from __future__ import annotations

import sys
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
    degrade_option,
    device_option,
    download_option,
    limit_option,
    out_option,
    precision_option,
    progress_bar,
    protocol_option,
    reading_options,
    reference_is_option,
    reference_mismatch_option,
    reference_option,
    root_option,
    say,
    say_left_out,
    size_option,
    stoppable,
)
from tokbench.cli.outcome import Key, label, report
from tokbench.cli.tables import Form, TablePrinter, format_option
from tokbench.data.reading import ReadOptions
from tokbench.errors import DataError, TokbenchError, UsageError
from tokbench.io.counts import count_of
from tokbench.metric_names import ANCHORS, ITEMS, Anchor, TaskKind, defaults, measurable, refuse_task, table_of_task
from tokbench.protocol.suites import SUITES
from tokbench.tokenizers.checkpoint_names import named_argument


@click.command("eval")
@click.argument("adapters", metavar="ADAPTER...", nargs=-1, required=True)
@click.option("--name", help="Name of the row, for a single images:, diffusers: or torchscript: (else NAME=ADAPTER).")
@data_option
@reading_options("first", "pair")
@click.option(
    "--metrics",
    "metric_names",
    help="Comma-separated names of metrics or groups, or 'all' [default: see 'tokbench list metrics'].",
)
@click.option(
    "--suite",
    type=click.Choice(list(SUITES)),
    help="Use the size, protocol, metrics and datasets of a suite. --data overrides the datasets (comma-separated).",
)
@click.option(
    "--faithful",
    is_flag=True,
    help="With --suite: also apply the steps that only the authors' code does (JPEG compression).",
)
@limit_option
@size_option
@protocol_option
@degrade_option
@click.option(
    "--restore",
    metavar="ADAPTER",
    help="With --degrade: an adapter that restores the images before the others get them, such as drsformer.d24.",
)
@reference_option
@reference_is_option
@reference_mismatch_option
@click.option(
    "--task",
    type=click.Choice(["reconstruct", "truncate", "perturb", "generate", "decode"]),
    default="reconstruct",
    show_default=True,
    help="Which tokens are decoded: all tokens, only the first ones, tokens replaced by close neighbours (pFID), or "
    "tokens sampled by a generator (gFID); or, with decode, all tokens by variants of the decoder.",
)
@click.option("--tokens", help="With truncate: numbers of tokens to keep, for example 4,8 [default: 1, 2, 4 ... all].")
@click.option(
    "--anchor",
    type=click.Choice(ANCHORS),
    help="With perturb: replace by neighbours of the encoder's latent or of the chosen code [default: latent].",
)
@click.option(
    "--cfg",
    type=click.FloatRange(min=0),
    help="With generate: scale of classifier-free guidance; 1 disables it [default: the generator's own scale].",
)
@click.option(
    "--decoder",
    "decoders",
    multiple=True,
    metavar="VARIANT",
    help="With decode: a variant of the decoder, tiles=SIZE[,overlap=N], bf16, fp16, tiling or slicing (of diffusers), "
    "or adapter:NAME. Repeat the option for several; all but adapter can be combined with commas "
    "[default: tiles=256 and bf16].",
)
@batch_size_option
@device_option
@precision_option
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of bootstrap intervals and of sampling decoders.",
)
@click.option("--skip-bad", is_flag=True, help="List unreadable images without setting the exit status to 1.")
@click.option(
    "--skip-existing",
    is_flag=True,
    help="Keep results in --out that have the same code, weights, settings and pixels; measure only missing metrics.",
)
@click.option("--no-cache", is_flag=True, help="Do not read or write the cache; the run cannot be resumed.")
@download_option
@format_option
@click.option("--json", "as_json", is_flag=True, help="Print only a JSON list to stdout, one object per result.")
@root_option
@out_option("Folder for results.")
@click.pass_context
def eval_(
    ctx: click.Context,
    adapters: tuple[str, ...],
    name: str | None,
    data: str,
    reading: ReadOptions,
    metric_names: str | None,
    suite: str | None,
    faithful: bool,
    limit: int | None,
    size: int | None,
    protocol: str,
    degrade: str | None,
    restore: str | None,
    reference: Path | None,
    reference_is: str | None,
    reference_mismatch: str | None,
    task: TaskKind,
    tokens: str | None,
    anchor: Anchor | None,
    cfg: float | None,
    decoders: tuple[str, ...],
    batch_size: int,
    device: str | None,
    precision: Literal["float32", "bfloat16"],
    seed: int,
    skip_bad: bool,
    skip_existing: bool,
    no_cache: bool,
    allow_download: bool,
    form: Form | None,
    as_json: bool,
    root: Path | None,
    out: Path,
) -> None:
    """Evaluate tokenizers on images.

    ADAPTER is a name (see 'tokbench list adapters'), the path of an adapter folder, images:DIR, diffusers:PLACE (a
    folder, a .safetensors file or a hub id) or torchscript:DIR. NAME=diffusers:PLACE chooses the name of the row; by
    default it is the last part of the path and a digest of the weights. Several adapters share one pass over the
    images. To resume an interrupted run, repeat the command. To split the images over several processes, use:
    torchrun --nproc-per-node 4 -m tokbench eval ...

    With --task generate, ADAPTER is a generator or images:SAMPLES (a folder, zip, tar, Parquet file or ADM's npz).
    Samples are compared, unpaired, with the images of --data or with a statistics file (--data FILE.npz). --limit is
    the number of samples.

    With --task decode, the decoder itself and each variant of it decode the same tokens, with one result for each.

    Exit status: 0 if every requested metric was computed or skipped with a reason, 1 for a failure or for unreadable
    images (without --skip-bad), 2 for wrong usage.
    """
    from tokbench.metrics import registry
    from tokbench.protocol.protocol import load_protocol
    from tokbench.results import leaderboard

    if name is not None:
        if len(adapters) > 1:
            raise UsageError("--name names a single adapter; for several, write NAME=ADAPTER before each")
        adapters = (named_argument(adapters[0], name),)
    counts, listed = _counts(tokens), metric_names not in (None, "all")
    for option, value, wanted in (
        ("--tokens", tokens, "truncate"),
        ("--anchor", anchor, "perturb"),
        ("--cfg", cfg, "generate"),
        ("--decoder", decoders or None, "decode"),
    ):
        if value is not None and task != wanted:
            raise UsageError(f"{option} requires --task {wanted}")
    given = {
        name for name in ("data", "size", "protocol") if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    names = [data]
    if suite:
        if conflicts := given & {"size", "protocol"}:
            raise UsageError(f"--suite {suite} sets the {' and '.join(sorted(conflicts))}; remove these options")
        chosen_suite = SUITES[suite]
        names = [name.strip() for name in data.split(",")] if "data" in given else list(chosen_suite.data)
        size, protocol = chosen_suite.size, chosen_suite.faithful if faithful else chosen_suite.protocol
        metric_names = metric_names or ",".join(chosen_suite.metrics)
        if faithful and not chosen_suite.faithful:
            raise UsageError(f"--suite {suite} has no steps that only other code does; omit --faithful")
        if task == "generate":
            raise UsageError(f"--suite {suite} evaluates reconstructions and cannot be combined with --task generate")
    elif faithful:
        raise UsageError("--faithful requires --suite")
    if skip_existing and task in ("perturb", "generate"):
        raise UsageError(f"--skip-existing cannot be combined with --task {task}")
    rules = load_protocol(protocol).degraded(degrade)
    if restore and not rules.degrade:
        raise UsageError("--restore requires --degrade, which damages the images that it restores")
    from tokbench.modalities.open import modality_of, open_dataset  # it imports torch

    modality = modality_of(names[0], root, reading)
    refuse_task(task, modality)
    if task == "perturb":
        requested = ",".join(defaults("perturb", modality)) if metric_names is None else metric_names
        chosen = measurable(registry.choose(requested, rules, modality), strict=listed)
    else:
        chosen = registry.choose_for(task, metric_names, rules, modality)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written ({error.strerror})") from error

    from tokbench.data.stream import ImageStream
    from tokbench.evaluation.config import Context, EvalConfig
    from tokbench.evaluation.distributed import ranks
    from tokbench.evaluation.evaluate import evaluate
    from tokbench.evaluation.finished import Plan, merged, plan_remaining
    from tokbench.evaluation.restore import Restorer
    from tokbench.evaluation.sample_plan import plan_samples, statistics_of
    from tokbench.evaluation.tasks import RECONSTRUCT, Decode, Generate, Perturb, Truncate
    from tokbench.extractors.pool import ExtractorPool
    from tokbench.metrics.fid_statistics import load_statistics
    from tokbench.paths import cache_dir
    from tokbench.results.result import Result, failure
    from tokbench.tokenizers.builtin.images import ImageFolder
    from tokbench.tokenizers.registry import load_adapter, load_adapters

    chosen_task = {
        "truncate": Truncate(counts), "perturb": Perturb(anchor or "latent"), "generate": Generate(cfg),
        "decode": Decode.of(decoders, root, allow_download),
    }.get(task, RECONSTRUCT)  # fmt: skip

    def evaluate_dataset(
        loaded: list[Any], dataset: ImageStream, config: EvalConfig, networks: ExtractorPool, process: Any
    ) -> tuple[list[Result], dict[Key, str]]:
        """Return the results on one dataset, and the reasons for missing ones by adapter and task."""
        done, noun = (0, len(dataset)), ITEMS[dataset.modality].noun

        def resume_hint() -> str:
            if no_cache:
                return "nothing was kept because of --no-cache"
            return f"{done[0]:,} of {count_of(done[1], noun)} were read; repeat the command to resume"

        with redirect_stdout(sys.stderr), stoppable(resume_hint), progress_bar(quiet=not process.first) as bar:

            def progress(what: str, count: int, total: int) -> None:
                nonlocal done
                done = (count, total) if what == f"{noun}s" else done
                bar(what, count, total)

            try:
                context = Context(None if no_cache else cache_dir(), process, networks, warn=say, progress=progress)
                results = evaluate(loaded, dataset, config, context)
            except DataError as error:
                return [], {(adapter.name, chosen_task.name): str(error) for adapter in loaded}
        return results, {(result.adapter, result.task): result.error for result in results if result.error}

    def save(results: list[Result]) -> dict[Key, str]:
        """Write results. Return the reasons for those that cannot be written."""
        unwritten = {}
        for result in results:
            try:
                path, replaced = result.save(out)
                say(f"wrote {path}{f' (replaced an earlier result: {replaced})' if replaced else ''}")
                if result.checkpoint is not None:
                    result.checkpoint.discard()
            except TokbenchError as error:
                unwritten[result.adapter, result.task] = str(error)
        return unwritten

    facts: list[dict[str, Any]] = []
    printer = TablePrinter(form)
    broken = False
    with ranks() as process:
        device = choose_device(device, process.local)
        if chosen_task.paired:
            statistics = load_statistics(reference) if reference else None
        else:
            statistics = statistics_of(data, "data" in given, reference)
        if reference_is or reference_mismatch:
            if statistics is None:
                raise UsageError("--reference-is and --reference-mismatch require --reference with a statistics file")
            statistics = statistics.assume(reference_is).allow_mismatch(reference_mismatch)
        streams: list[ImageStream] = []
        if chosen_task.paired:  # before loading adapters, which can take long
            streams = [open_dataset(name, rules, size, limit, root, reading) for name in names]
            if any(stream.modality != modality for stream in streams):
                raise UsageError(
                    "the datasets are of several kinds, which have different metrics; evaluate them one by one"
                )
        with redirect_stdout(sys.stderr):  # output of adapters must not mix with the results on stdout
            loaded, not_loaded = load_adapters(adapters, device, root, allow_download, reading)
        if not chosen_task.paired:
            references = partial(open_dataset, data, rules, size, None, root, reading)
            streams = [plan_samples(data, rules, references, limit, reading.split, statistics, loaded)]
        folders = [adapter.model.left_out for adapter in loaded if isinstance(adapter.model, ImageFolder)]
        for left_out in (*(stream.summary().left_out for stream in streams), *folders):
            if process.first:
                say_left_out(left_out)
        unloaded = {(name, chosen_task.name): reason for name, reason in not_loaded.items()}
        networks = ExtractorPool(device, allow_download, precision)
        with redirect_stdout(sys.stderr):
            restorer = Restorer(load_adapter(restore, device, root, allow_download)) if restore else None
        config = EvalConfig(tuple(chosen), chosen_task, batch_size, seed, device, precision, statistics, restorer)
        for dataset in streams:
            plan = Plan({}, [(config, loaded)] if loaded else [])
            if skip_existing:
                plan = plan_remaining(loaded, dataset, config, out, networks)
            results, failed = list[Result](), dict(unloaded)
            for part, members in plan.groups:
                measured, reasons = evaluate_dataset(members, dataset, part, networks, process)
                results, failed = results + measured, failed | reasons
            if not process.first:
                for key, reason in failed.items():
                    say(f"rank {process.rank}: failed {label(key)}: {reason}")
                broken = broken or bool(failed)
                continue
            good = [result for result in results if result.error is None]
            bad = dataset.summary().unreadable
            failed |= save(good)
            if skip_existing:  # the tables and the JSON output show the earlier metrics, too
                saved = [result for result in good if (result.adapter, result.task) not in failed]
                good = [merged(result, out) for result in saved]
                good += [result for results in plan.kept.values() for result in results]
                for name in plan.kept if process.first else ():
                    say(f"kept {name}: no metric is missing")
            if as_json:
                records = {(result.adapter, result.task): result.to_dict() for result in good}
                failures = {key: failure(key[0], dataset.name, key[1], why, bad) for key, why in failed.items()}
                facts += (failures | records).values()
            else:
                tasks = [table_of_task(result.task)[0] for result in good]
                for name in dict.fromkeys(tasks):
                    title = dataset.name if name == RECONSTRUCT.name else f"{dataset.name}, {name}"
                    printer.add(title, [result for result, own in zip(good, tasks, strict=True) if own == name])
            # The table on the same terminal already lists the warnings.
            table_shown = not as_json and printer.form != "csv" and sys.stdout.isatty() and sys.stderr.isatty()
            report(good, bad, failed, warnings=not table_shown, in_detail=listed, allow_download=allow_download)
            broken = broken or bool(failed) or bool(bad and not skip_bad)
    printer.finish()
    if as_json and process.first:
        click.echo(leaderboard.to_json(facts))
    if broken:
        sys.exit(1)


def _counts(text: str | None) -> tuple[int, ...] | None:
    """Parse `4,8` as (4, 8), sorted and without duplicates. Raises UsageError."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and int(part) for part in parts):
        raise UsageError(f"--tokens {text}: expected numbers of tokens, for example 4,8")
    return tuple(sorted({int(part) for part in parts}))
