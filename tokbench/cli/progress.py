"""Progress on stderr: a bar on a terminal, and a line a minute in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

Update = Callable[[str, int, int], None]
"""Called with the current stage, the number of finished items and their total."""

_INTERVAL = 60.0
"""Seconds between two lines if stderr is no terminal."""


@contextmanager
def progress_bar(quiet: bool = False) -> Iterator[Update]:
    """Yield a callback (stage, done, total) that shows the progress of each stage on stderr.

    A terminal shows a bar per stage. Otherwise a line is printed every minute. quiet: show nothing.
    """
    if quiet:
        yield lambda what, done, total: None
        return
    if not sys.stderr.isatty():
        yield ProgressLines(lambda text: click.echo(text, err=True))
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

        def update(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield update


class ProgressLines:
    """Prints a line a minute: finished items, total, items per second and the time left.

    The speed is that since the last line, because a resumed run finishes its first images at once. write: prints a
    line. clock: returns the time in seconds.
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._last: dict[str, tuple[float, int]] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        now = self._clock()
        since, before = self._last.setdefault(what, (now, done))
        if now - since < _INTERVAL or done <= before:
            return
        speed = (done - before) / (now - since)
        self._last[what] = now, done
        left = f"{duration((total - done) / speed)} left" if done < total else "finished"
        self._write(f"{what}: {done:,} of {total:,}, {speed:.3g} {what}/s, {left}")


def duration(seconds: float) -> str:
    """Return a duration such as "40 s", "12 min" or "3 h 05 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
