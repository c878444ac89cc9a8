"""The command line: parses, calls the library, prints. Nothing here imports torch until a command needs it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import click

import tokbench
from tokbench.errors import DataError, TokbenchError, UsageError


class _Group(click.Group):
    """Turns tokbench's errors into one line and an exit status: 2 for wrong usage, 1 for the rest."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            raise click.UsageError(str(error)) from error
        except TokbenchError as error:
            raise click.ClickException(str(error)) from error


root_option = click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder that holds adapters/ and datasets/ [default: TOKBENCH_ROOT, the current folder, the source checkout].",
)


def _out_option(help_text: str) -> Callable[..., Any]:
    return click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("results"),
        show_default=True,
        help=help_text,
    )


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(tokbench.__version__, prog_name="tokbench")
def main() -> None:
    """Benchmark and evaluation suite for visual tokenizers."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal or pipe of another encoding must not end a run
            stream.reconfigure(errors="replace")


@main.command()
@click.argument("adapters", metavar="ADAPTER...", nargs=-1, required=True)
@click.option(
    "--data", default="samples", show_default=True, help="A dataset's name, or a folder, zip, tar or Parquet file."
)
@click.option(
    "--metrics", "metric_names", help="Comma-separated names, or 'all' [default: see 'tokbench list metrics']."
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N images.")
@click.option(
    "--size", type=click.IntRange(min=1), help="Short side to S, centre S x S [default: the dataset's own size]."
)
@click.option("--protocol", default="tokbench", show_default=True, help="How images are prepared and compared.")
@click.option("--task", type=click.Choice(["reconstruct"]), default="reconstruct", show_default=True)
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=16, show_default=True, help="Images in one forward pass."
)
@click.option("--device", help="cpu, cuda, cuda:1 ... [default: cuda where there is one, else cpu].")
@click.option("--precision", type=click.Choice(["float32"]), default="float32", show_default=True)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of bootstrap intervals and of decoders that sample.",
)
@click.option("--skip-bad", is_flag=True, help="Unreadable images are listed, and do not make the exit status 1.")
@click.option("--allow-download", is_flag=True, help="Fetch missing weights of frozen networks and hub checkpoints.")
@click.option("--json", "as_json", is_flag=True, help="Print to stdout nothing but a JSON list, one object an adapter.")
@root_option
@_out_option("Where results are written.")
def eval(
    adapters: tuple[str, ...],
    data: str,
    metric_names: str | None,
    limit: int | None,
    size: int | None,
    protocol: str,
    task: str,
    batch_size: int,
    device: str | None,
    precision: str,
    seed: int,
    skip_bad: bool,
    allow_download: bool,
    as_json: bool,
    root: Path | None,
    out: Path,
) -> None:
    """Evaluate tokenizers on images.

    ADAPTER is a name (tokbench list adapters), a path to an adapter folder, or images:DIR, diffusers:DIR_OR_ID,
    torchscript:DIR. Several adapters share one pass over the images.

    Exit status: 0 when every metric asked for was computed or skipped with a reason, 1 for a failure or for images
    that cannot be read (without --skip-bad), 2 for wrong usage.
    """
    from tokbench import leaderboard, metrics
    from tokbench.protocol import load_protocol

    chosen = metrics.choose(metric_names)
    rules = load_protocol(protocol)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written ({error.strerror})") from error

    from tokbench.dataset import open_dataset
    from tokbench.evaluate import evaluate
    from tokbench.plugins import load_adapter
    from tokbench.readers import Networks
    from tokbench.result import failure

    device = _device(device)
    dataset = open_dataset(data, rules, size, limit, root)
    loaded, results, failed = [], [], {}
    with redirect_stdout(sys.stderr):  # what adapters print must not mix with the result
        for name in dict.fromkeys(adapters):
            try:
                loaded.append(load_adapter(name, device, root, allow_download))
            except UsageError:
                raise
            except TokbenchError as error:
                failed[name] = str(error)
        names = [adapter.name for adapter in loaded]
        if twice := {name for name in names if names.count(name) > 1}:
            raise UsageError(
                f"two adapters are named {', '.join(sorted(twice))} and would share a result; rename a folder"
            )
        try:
            if loaded:
                with _progress(len(dataset)) as advance:
                    results = evaluate(
                        loaded,
                        dataset,
                        chosen,
                        task=task,
                        precision=precision,
                        networks=Networks(device, allow_download),
                        batch_size=batch_size,
                        seed=seed,
                        progress=advance,
                    )
        except DataError as error:
            failed |= dict.fromkeys(names, str(error))
    failed |= {result.adapter: result.error for result in results if result.error}
    good = [result for result in results if result.error is None]
    for result in good:
        try:
            path, replaced = result.save(out)
            _say(f"wrote {path}" + (" (replaced: its data, code, weights or seed had changed)" if replaced else ""))
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


def _device(asked: str | None) -> str:
    import torch

    if asked is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=asked)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device '{asked}' cannot be used here: {str(error).splitlines()[0]}") from error
    return asked


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar with images/s and the time left on a terminal; nothing where stderr is piped."""
    if not sys.stderr.isatty():
        yield lambda images: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TimeRemainingColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed:.1f} images/s" if task.speed else "")

    with Progress(
        BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn(), console=Console(stderr=True)
    ) as bar:
        task = bar.add_task("images", total=total)
        yield lambda images: bar.advance(task, images)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _report(results: list[Any], bad: list[tuple[str, str]], failed: dict[str, str]) -> None:
    """On stderr: what was skipped and why (once for all adapters that share it), bad images, failures."""
    skipped: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for metric, reason in result.notes.items():
            skipped.setdefault((metric, reason), []).append(result.adapter)
    for (metric, reason), names in skipped.items():
        some = "" if len(names) == len(results) else f" for {', '.join(names)}"
        _say(f"skipped {metric}{some}: {reason}")
    for name, reason in bad:
        _say(f"bad image {name}: {reason.removeprefix(f'{name}: ')}")
    for name, reason in failed.items():
        _say(f"failed {name}: {reason.removeprefix(f'{name}: ')}")


@main.command("list")
@click.argument("what", type=click.Choice(["adapters", "datasets", "metrics", "protocols"]))
@root_option
def list_(what: str, root: Path | None) -> None:
    """List adapters, datasets, metrics or protocols."""
    from tokbench import listing

    for line in listing.LISTS[what](root):
        click.echo(line)


@main.command()
@click.argument("result", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def show(result: Path) -> None:
    """Print one result file: its numbers with intervals, what was skipped, and how it was made."""
    from tokbench import listing
    from tokbench.result import load

    click.echo(listing.show(load(result)), nl=False)


@main.command()
@_out_option("The folder of results.")
def leaderboard(out: Path) -> None:
    """Rebuild every table (CSV and Markdown) from the result files."""
    from tokbench.leaderboard import write

    for path in write(out):
        click.echo(path)


@main.group(invoke_without_command=True, cls=_Group)
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
