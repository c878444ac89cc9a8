"""Trainings of one command: one after the other, or several at a time, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
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
from tokbench.training.zoo import dependencies, train_adapter

Told = Callable[[str, int, int], None]
"""Told what is being done, how many are done, and of how many."""


@dataclass(frozen=True)
class Common:
    """What all trainings of a command share; the fields are `tokbench.training.zoo.train_adapter`'s."""

    data: str
    profile: str
    changes: dict[str, Any]
    device: str
    out: Path | None


@dataclass(frozen=True)
class Ended:
    """How a training ended: where its weights are and what it was, or why there are none."""

    name: str
    path: Path | None = None
    record: TrainRecord | None = None
    error: str | None = None


def trainings(
    wanted: Mapping[str, Path], material: TrainingData, common: Common, jobs: int, told: Told, root: Path | None = None
) -> Iterator[Ended]:
    """Train adapters of `root` by name and TOML file, `jobs` at a time, each after those of them that it is built on.

    One that fails does not stop the others. Where the caller stops, so do those that are running: the same call goes on
    from their last minute.
    """
    if jobs == 1:
        for name, toml in wanted.items():
            yield _one(name, toml, material, common, told)
        return
    cache_dir().mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="material-", dir=cache_dir()) as folder:
        # As files, which all processes map: they may be larger than the memory that a container lets them share.
        np.save(Path(folder) / "pixels.npy", material.pixels.numpy())
        if material.labels is not None:
            np.save(Path(folder) / "labels.npy", material.labels.numpy())
        yield from _several(wanted, dependencies(root), Path(folder), common, jobs, told)


def _several(
    wanted: Mapping[str, Path], below: Mapping[str, set[str]], folder: Path, common: Common, jobs: int, told: Told
) -> Iterator[Ended]:
    """`below`: what each is built on. folder: the material.

    Each training has a process of its own, not one of a ProcessPoolExecutor: there a process that dies, as for lack of
    memory, ends all others, and none can be ended while it works.
    """
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // jobs)
    order = TopologicalSorter({name: below[name] & wanted.keys() for name in wanted})
    order.prepare()
    waiting, running = list[str](), dict[Connection, tuple[str, BaseProcess]]()
    try:
        while order.is_active():
            waiting += order.get_ready()
            for name in waiting[: jobs - len(running)]:
                ours, theirs = context.Pipe(duplex=False)
                given = (theirs, name, wanted[name], folder, common, threads)
                started = context.Process(target=_child, args=given, name=name, daemon=True)
                started.start()
                theirs.close()
                waiting.remove(name)
                running[ours] = (name, started)
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                name, process = running[connection]
                try:
                    news = connection.recv()
                except EOFError:
                    process.join()  # or it has no exit code yet
                    news = Ended(name, error=f"its process ended with {process.exitcode} before it was done")
                if isinstance(news, Ended):
                    process.join()
                    connection.close()
                    del running[connection]
                    order.done(name)
                    yield news
                else:
                    told(*news)
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()


def _child(connection: Connection, name: str, toml: Path, folder: Path, common: Common, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent ends this process
    torch.set_num_threads(threads)
    pixels, *labels = (
        torch.from_numpy(np.load(folder / file, mmap_mode="c"))
        for file in ("pixels.npy", "labels.npy")
        if (folder / file).exists()
    )
    material = TrainingData(pixels, labels[0] if labels else None)
    connection.send(_one(name, toml, material, common, lambda *news: connection.send(news)))


def _one(name: str, toml: Path, material: TrainingData, common: Common, told: Told) -> Ended:
    def seen(share: float, images: int, speed: float, terms: dict[str, float]) -> None:
        told(f"{name} images", images, round(images / share) if share else images)

    try:
        path, record = train_adapter(
            name, toml, material, common.data, common.profile, common.changes, device=common.device, out=common.out,
            progress=seen, encoding=lambda done, total: told(f"{name} images encoded", done, total),
        )  # fmt: skip
    except TokbenchError as error:
        return Ended(name, error=str(error).removeprefix(f"{name}: "))
    return Ended(name, path, record)
