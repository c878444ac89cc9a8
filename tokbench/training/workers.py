"""The trainings of one command: one after the other, or several at a time in separate processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from tokbench.errors import TokbenchError
from tokbench.nn.trainable import TrainingData
from tokbench.paths import cache_dir
from tokbench.tokenizers.training_record import TrainRecord
from tokbench.training import loop
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
    running trainings stop too; the same call resumes them from their last checkpoints.
    """
    if jobs == 1:
        for name, toml in wanted.items():
            yield _train_one(name, toml, data, options, report)
        return
    cache_dir().mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="training-data-", dir=cache_dir()) as folder:
        # Files that all processes map: the data may be larger than the shared memory of a container.
        np.save(Path(folder) / "pixels.npy", data.pixels.numpy())
        if data.labels is not None:
            np.save(Path(folder) / "labels.npy", data.labels.numpy())
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
    """Delays SIGTERM during a training until a checkpoint was written; at other times SIGTERM ends the process."""

    def __init__(self) -> None:
        self.handled = self.requested = self.saving = False

    def progress(self) -> None:
        """Must be called at each report of the training loop, which writes a checkpoint afterwards if one is due."""
        if self.saving:
            sys.exit(128 + signal.SIGTERM)
        if self.requested:
            loop.KEPT = -1.0  # a checkpoint is due now
            self.saving = True
        if not self.handled:
            signal.signal(signal.SIGTERM, self._request)
            self.handled = True

    def _request(self, number: int, frame: object) -> None:
        self.requested = True


def _child(connection: Connection, name: str, toml: Path, folder: Path, options: TrainOptions, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes; the parent ends this one
    torch.set_num_threads(threads)
    pixels, *labels = (
        torch.from_numpy(np.load(folder / file, mmap_mode="c"))
        for file in ("pixels.npy", "labels.npy")
        if (folder / file).exists()
    )
    data, termination = TrainingData(pixels, labels[0] if labels else None), _Termination()
    outcome = _train_one(name, toml, data, options, lambda *progress: connection.send(progress), termination.progress)
    connection.send(outcome)


def _train_one(
    name: str,
    toml: Path,
    data: TrainingData,
    options: TrainOptions,
    report: Report,
    on_progress: Callable[[], None] = lambda: None,
) -> Outcome:
    def progress(share: float, images: int, speed: float, terms: dict[str, float]) -> None:
        on_progress()
        report(f"{name} images", images, round(images / share) if share else images)

    try:
        path, record = train_adapter(
            name,
            toml,
            data,
            options,
            progress=progress,
            encoding=lambda done, total: report(f"{name} images encoded", done, total),
        )
    except TokbenchError as error:
        return Outcome(name, error=str(error).removeprefix(f"{name}: "))
    return Outcome(name, path, record)
