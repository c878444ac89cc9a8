"""Whether what a model makes follows from its seeds, found out by giving it others."""

from __future__ import annotations

from tokbench.data.stream import ImageStream
from tokbench.evaluation.reconstruct import RunSettings
from tokbench.evaluation.steps import plain_step
from tokbench.evaluation.tasks import Task
from tokbench.metrics.batch import DerivedCache
from tokbench.timing import exact_kernels
from tokbench.tokenizers.base import ImageModel
from tokbench.tokenizers.contract import TRIED

VISIBLE = 0.5 / 255
"""Of images in [0, 1]: half a level of 8 bits. Rounding errors of a network's kernels stay far below it."""


def draws_noise(model: ImageModel, task: Task, stream: ImageStream, device: str, seed: int) -> bool:
    """Whether the first images come out visibly different with other seeds: a decoder, or a generator, that samples.

    model: ready on the device, as `evaluate` leaves it. stream: what `evaluate` ran through. The task's own changes to
    the tokens (`perturb`) are left out, since their noise is drawn on the CPU and is the same on every device.
    Raises whatever the model raises.
    """
    first = next(iter(stream.batches(TRIED)), None)
    if first is None:
        return False
    step = plain_step(model) if task.paired else task.steps(model)[0]
    with exact_kernels():
        ours, other = (
            task.produce(step, model, first, RunSettings(device, TRIED, each), DerivedCache()).require("image")
            for each in (seed, seed + 1)
        )
    return bool((ours - other).abs().max() > VISIBLE)
