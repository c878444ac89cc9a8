"""Options, signal handling and error handling shared by several commands."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import click

from tokbench.cli.progress import progress_bar as progress_bar
from tokbench.data.reading import ReadOptions
from tokbench.errors import TokbenchError, UsageError

_LOG = logging.getLogger("tokbench")


class Group(click.Group):
    """Click group that reports tokbench errors in one line. Exit status: 2 for wrong usage, 1 for other errors."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            _LOG.debug("the command ended with this error", exc_info=error)
            raise click.UsageError(str(error)) from error
        except TokbenchError as error:
            _LOG.debug("the command ended with this error", exc_info=error)
            raise click.ClickException(str(error)) from error


data_option = click.option(
    "--data",
    default="samples",
    show_default=True,
    help="Dataset name, folder, file of images (zip, tar, Parquet, Arrow, npz, or a .txt list of paths), or a quoted "
    "pattern such as 'data/val-*.parquet' or 'shard-{0000..0009}.tar'.",
)
limit_option = click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Use only N images: the first ones, or an even sample over all class folders.",
)
size_option = click.option(
    "--size",
    type=click.IntRange(min=1),
    help="Resize the short side to S px and crop S x S [default: the dataset's size].",
)
batch_size_option = click.option(
    "--batch-size", type=click.IntRange(min=1), default=16, show_default=True, help="Images per forward pass."
)
protocol_option = click.option(
    "--protocol", default="tokbench", show_default=True, help="Evaluation protocol: a name or a .toml file."
)
degrade_option = click.option(
    "--degrade",
    metavar="KIND:LEVEL",
    help="Damage the images before the tokenizer gets them, and compare with the clean ones: rain:LEVEL (0 to 1), "
    "noise:SIGMA (levels of 255), blur:SIGMA (pixels) or jpeg:QUALITY (1 to 95).",
)
reference_option = click.option(
    "--reference",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Statistics file (.npz) to compare distributions with, instead of the statistics of the evaluated images.",
)
reference_is_option = click.option(
    "--reference-is",
    metavar="NETWORK:INPUT:PRECISION[:SIZE[:PROTOCOL]]",
    help="Origin of the statistics file, if the file does not record it, for example "
    "inception-2015-12-05:tf1:float32:256:adm. If size and protocol are omitted, they are not checked; the result "
    "and its tables note this.",
)
reference_mismatch_option = click.option(
    "--reference-mismatch",
    metavar="size,protocol",
    help="Properties in which the images of the statistics file may differ from this run; the result and its tables "
    "note them.",
)
device_option = click.option("--device", help="cpu, cuda, cuda:1 ... [default: cuda if available, otherwise cpu].")
download_option = click.option(
    "--allow-download", is_flag=True, help="Download missing weights of frozen networks and hub checkpoints."
)
root_option = click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with adapters/ and datasets/ [default: TOKBENCH_ROOT, the current folder or the source checkout].",
)


precision_option = click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Precision of the networks used by metrics. bfloat16 is faster; each result records the difference it makes.",
)


_READING = {
    "split": click.option(
        "--split",
        metavar="NAME",
        help="Split to use if --data contains several: train, validation or test [default: the only split].",
    ),
    "column": click.option(
        "--column",
        metavar="NAME",
        help="Column (Parquet, Arrow) or array (npz) with the images [default: the only one with images].",
    ),
    "follow_links": click.option(
        "--follow-links", is_flag=True, help="Follow symbolic links that leave the folder of images."
    ),
    "first": click.option(
        "--first",
        is_flag=True,
        help="With --limit: take the first N images of class folders, instead of an even sample of all of them.",
    ),
    "pair": click.option(
        "--pair",
        type=click.Choice(["name", "order"]),
        default="name",
        show_default=True,
        help="How reconstructions of images:PATH are paired with the images: by name without suffix, or in order.",
    ),
}
_ALWAYS = ("split", "column", "follow_links")


def reading_options(*more: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds the options of `ReadOptions`; the command gets them as the argument `reading`.

    more: `first` for commands with --limit, `pair` for commands that evaluate reconstructions.
    """
    names = [name for name in _READING if name in (*_ALWAYS, *more)]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def with_reading(*args: Any, **given: Any) -> Any:
            reading = ReadOptions(**{name: given.pop(name) for name in names})
            return command(*args, reading=reading, **given)

        decorated: Callable[..., Any] = with_reading
        for name in reversed(names):
            decorated = _READING[name](decorated)
        return decorated

    return decorate


def out_option(help_text: str) -> Callable[..., Any]:
    return click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("results"),
        show_default=True,
        help=help_text,
    )


class Stopped(BaseException):
    """Raised by a termination signal; `status` is the exit status of the process."""

    def __init__(self, signal_name: str, status: int) -> None:
        super().__init__(signal_name)
        self.signal_name, self.status = signal_name, status


@contextmanager
def stoppable(resume_hint: Callable[[], str]) -> Iterator[None]:
    """Exit cleanly on Ctrl-C or SIGTERM, after printing the text that `resume_hint` returns."""

    def stop(number: int, frame: Any) -> None:
        raise Stopped(signal.Signals(number).name, 128 + number)

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        yield
    except (Stopped, KeyboardInterrupt) as stopped:
        say(f"stopped by {getattr(stopped, 'signal_name', 'SIGINT')}: {resume_hint()}")
        raise SystemExit(getattr(stopped, "status", 130)) from stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say_left_out(counts: Mapping[str, int]) -> None:
    """Report to stderr how many files in unsupported image formats were ignored, by suffix."""
    from tokbench.io.left_out import describe_left_out, left_out_remedy

    if counts:
        say(f"ignored {describe_left_out(counts)}; {left_out_remedy(counts)}")


def say(text: str) -> None:
    """Print a message to stderr; stdout is reserved for results."""
    click.echo(text, err=True)


def add_debug_option(command: click.Command) -> None:
    """Add `--debug` to a command: print the whole traceback of every error, also of those that a command survives."""
    command.params.append(
        click.Option(
            ["--debug"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=lambda ctx, param, value: _log_tracebacks() if value else None,
            help="Print the whole traceback of every error.",
        )
    )


def _log_tracebacks() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    _LOG.setLevel(logging.DEBUG)
    _LOG.addHandler(handler)
    _LOG.propagate = False


FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
