"""The trainings of one command: one after the other, or several at a time in separate processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from tokbench.errors import TokbenchError
from tokbench.nn.trainable import TrainingData
from tokbench.paths import cache_dir
from tokbench.tokenizers.training_record import TrainRecord
from tokbench.training.zoo import TrainOptions, dependencies, train_adapter

Report = Callable[[str, int, int], None]
"""Called with an activity, the number of images that are done, and the total."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one training: its weights file and its record, or the reason why it failed."""

    name: str
    path: Path | None = None
    record: TrainRecord | None = None
    error: str | None = None


def trainings(
    wanted: Mapping[str, Path],
    data: TrainingData,
    options: TrainOptions,
    jobs: int,
    report: Report,
    root: Path | None = None,
) -> Iterator[Outcome]:
    """Train adapters and yield the outcome of each; an adapter that fails does not stop the others.

    wanted: the TOML files by name, in the order in which the trainings start. jobs: the number of trainings at a time;
    an adapter starts after its dependencies. root: the folder with adapters/. If the caller stops the iteration, the
    running trainings stop too; the same call resumes them from their last checkpoints. A signal that ends the process
    first lets the running trainings write a checkpoint.
    """
    if jobs == 1:
        for name, toml in wanted.items():
            yield _train_one(name, toml, data, options, report)
        return
    cache_dir().mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="training-data-", dir=cache_dir()) as folder:
        # Files that all processes map: the data may be larger than the shared memory of a container.
        for name, values in vars(data).items():
            if values is not None:
                np.save(Path(folder) / f"{name}.npy", values.numpy())
        yield from _train_several(wanted, dependencies(root), Path(folder), options, jobs, report)


def _train_several(
    wanted: Mapping[str, Path],
    below: Mapping[str, set[str]],
    folder: Path,
    options: TrainOptions,
    jobs: int,
    report: Report,
) -> Iterator[Outcome]:
    """Train adapters in separate processes.

    below: the dependencies of each adapter. folder: the folder with the training data.
    A ProcessPoolExecutor is not used: there, a process that dies, for example for lack of memory, ends all others, and
    a running process cannot be stopped.
    """
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // jobs)
    order = TopologicalSorter({name: below[name] & wanted.keys() for name in wanted})
    order.prepare()
    rank = {name: place for place, name in enumerate(wanted)}
    waiting, running = list[str](), dict[Connection, tuple[str, BaseProcess]]()
    try:
        while order.is_active():
            waiting = sorted([*waiting, *order.get_ready()], key=rank.__getitem__)
            for name in waiting[: jobs - len(running)]:
                ours, theirs = context.Pipe(duplex=False)
                given = (theirs, name, wanted[name], folder, options, threads)
                started = context.Process(target=_child, args=given, name=name, daemon=True)
                started.start()
                theirs.close()
                waiting.remove(name)
                running[ours] = (name, started)
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                name, process = running[connection]
                try:
                    message = connection.recv()
                except EOFError:
                    process.join()  # before this, there may be no exit code
                    message = Outcome(name, error=f"its process ended with {process.exitcode} before it was done")
                if isinstance(message, Outcome):
                    process.join()
                    connection.close()
                    del running[connection]
                    order.done(name)
                    yield message
                else:
                    report(*message)
    finally:
        for _, process in running.values():
            process.terminate()
        deadline = time.monotonic() + GRACE
        for _, process in running.values():
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()


GRACE = 30.0
"""Seconds for which a stopped command waits until its trainings have written their checkpoints."""


class _Termination:
    """Delays SIGTERM and SIGINT while a training runs, until its checkpoint or its weights were written.

    Before the first step they act at once. So does a second SIGINT; a second SIGTERM does not, because `timeout` sends
    one to the process and one to its group.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._received: int | None = None

    def requested(self) -> bool:
        """Return whether a signal has been received. From the first call to `deliver`, signals are delayed."""
        if not self._handlers and threading.current_thread() is threading.main_thread():
            before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
            self._handlers = {
                number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)
            }
            for number in self._handlers:
                signal.signal(number, self._receive)
        return self._received is not None

    def _receive(self, number: int, frame: object) -> None:
        again = number == self._received == signal.SIGINT
        self._received = number
        if again:
            self.deliver()

    def deliver(self) -> None:
        """End the delay: a signal that has been received takes effect now."""
        handlers, self._handlers = self._handlers, {}
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if handlers and self._received is not None:
            signal.raise_signal(self._received)


def _child(connection: Connection, name: str, toml: Path, folder: Path, options: TrainOptions, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes; the parent ends this one
    torch.set_num_threads(threads)
    files = sorted(folder.glob("*.npy"))
    data = TrainingData(**{file.stem: torch.from_numpy(np.load(file, mmap_mode="c")) for file in files})
    connection.send(_train_one(name, toml, data, options, lambda *progress: connection.send(progress)))


def _train_one(name: str, toml: Path, data: TrainingData, options: TrainOptions, report: Report) -> Outcome:
    """Train an adapter. A signal that ends the process takes effect after a checkpoint was written."""

    def progress(share: float, images: int, speed: float, terms: dict[str, float]) -> None:
        report(f"{name} {options.noun}s", images, round(images / share) if share else images)

    termination = _Termination()
    try:
        path, record = train_adapter(
            name,
            toml,
            data,
            options,
            progress=progress,
            encoding=lambda done, total: report(f"{name} {options.noun}s encoded", done, total),
            should_stop=termination.requested,
        )
    except TokbenchError as error:
        return Outcome(name, error=str(error).removeprefix(f"{name}: "))
    except Exception as error:  # adapters and devices may raise any exception; the other trainings go on
        return Outcome(name, error=f"{type(error).__name__}: {error}")
    finally:
        termination.deliver()
    return Outcome(name, path, record)
