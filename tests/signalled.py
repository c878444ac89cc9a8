"""A training that receives a signal, in a process of its own, so that no signal can end the process of the tests."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

from tokbench.nn.trainable import TrainingData
from tokbench.training import loop
from tokbench.training.workers import trainings
from tokbench.training.zoo import TrainOptions

STOPPED = 77
"""Exit status of a process whose own handler of the signal ran after the training, and which it then restored."""


class StoppedBySignal(Exception):
    pass


def exit_status(name: str, toml: Path, data: TrainingData, at: int, number: signal.Signals) -> int | None:
    """Train in a process that sends itself signal `number` after `at` images; return its exit status.

    Checkpoints are written only at its end.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tokbench.training.workers"])
    process = context.Process(target=_train, args=(name, toml, data, at, number))
    process.start()
    process.join(60)
    process.kill()
    return process.exitcode


def _train(name: str, toml: Path, data: TrainingData, at: int, number: signal.Signals) -> None:
    loop.KEPT = 3600.0

    def report(what: str, done: int, total: int) -> None:
        if done == at:
            os.kill(os.getpid(), number)

    def stop(received: int, frame: object) -> None:
        raise StoppedBySignal

    signal.signal(number, stop)
    try:
        list(trainings({name: toml}, data, TrainOptions("none"), 1, report, toml.parents[2]))
    except StoppedBySignal:
        os._exit(STOPPED if signal.getsignal(number) is stop else 1)
