"""What several commands share: options, the device, the progress bar, how errors become exit statuses."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from tokbench.errors import TokbenchError, UsageError


class Group(click.Group):
    """Turns tokbench's errors into one line and an exit status: 2 for wrong usage, 1 for the rest."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            raise click.UsageError(str(error)) from error
        except TokbenchError as error:
            raise click.ClickException(str(error)) from error


data_option = click.option(
    "--data",
    default="samples",
    show_default=True,
    help="A dataset's name; a folder, zip, tar or Parquet file; or a quoted pattern, as in 'data/val-*.parquet'.",
)
split_option = click.option(
    "--split", metavar="NAME", help="Of a path that holds several: train, validation or test [default: the only one]."
)
limit_option = click.option("--limit", type=click.IntRange(min=1), help="Only the first N images.")
size_option = click.option(
    "--size", type=click.IntRange(min=1), help="Short side to S, centre S x S [default: the dataset's own size]."
)
batch_size_option = click.option(
    "--batch-size", type=click.IntRange(min=1), default=16, show_default=True, help="Images in one forward pass."
)
protocol_option = click.option(
    "--protocol", default="tokbench", show_default=True, help="How images are prepared and compared (or a .toml)."
)
reference_option = click.option(
    "--reference",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A statistics file (.npz) to compare distributions with, in place of these images' own.",
)
reference_is_option = click.option(
    "--reference-is",
    metavar="NETWORK:INPUT:PRECISION[:SIZE[:PROTOCOL]]",
    help="What made that file, where it does not say so, as in inception-2015-12-05:tf1:float32:256:adm. Without size "
    "and protocol these are not checked, which the result and its tables say.",
)
reference_mismatch_option = click.option(
    "--reference-mismatch",
    metavar="size,protocol",
    help="What of that file's images differs from this run's by intention; the result and its tables say so.",
)
device_option = click.option("--device", help="cpu, cuda, cuda:1 ... [default: cuda where there is one, else cpu].")
download_option = click.option(
    "--allow-download", is_flag=True, help="Fetch missing weights of frozen networks and hub checkpoints."
)
root_option = click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder that holds adapters/ and datasets/ [default: TOKBENCH_ROOT, the current folder, the source checkout].",
)


precision_option = click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Of the networks that metrics read; bfloat16 is faster, and each result says what it changed.",
)
links_option = click.option("--follow-links", is_flag=True, help="Read symbolic links that leave the folder of images.")


def out_option(help_text: str) -> Callable[..., Any]:
    return click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("results"),
        show_default=True,
        help=help_text,
    )


@contextmanager
def progress_bar(quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """A bar with speed and the time left for each thing that is being done; nothing where stderr is piped."""
    if quiet or not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed:.1f} {task.description}/s" if task.speed else "")

    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:  # fmt: skip
        tasks: dict[str, Any] = {}

        def told(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield told


class Stopped(BaseException):
    """The run was told to end: `status` is what the process exits with."""

    def __init__(self, why: str, status: int) -> None:
        super().__init__(why)
        self.why, self.status = why, status


@contextmanager
def stoppable(left: Callable[[], str]) -> Iterator[None]:
    """Ends the process orderly at Ctrl-C or SIGTERM, and says what is `left` of its work."""

    def stop(number: int, frame: Any) -> None:
        raise Stopped(signal.Signals(number).name, 128 + number)

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        yield
    except (Stopped, KeyboardInterrupt) as stopped:
        say(f"stopped by {getattr(stopped, 'why', 'SIGINT')}: {left()}")
        raise SystemExit(getattr(stopped, "status", 130)) from stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say_left_out(counts: Mapping[str, int]) -> None:
    """On stderr: the files beside a dataset's images that look like images and are not read, by suffix, if any."""
    from tokbench.io.left_out import describe_left_out

    if counts:
        say(f"left out {describe_left_out(counts)}; convert or rename them")


def say(text: str) -> None:
    """To stderr, which holds all that is no result."""
    click.echo(text, err=True)


FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
