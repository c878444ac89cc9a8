"""Test whether a model's output depends on its seeds, by running it with two seeds."""

from __future__ import annotations

from tokbench.data.stream import ImageStream
from tokbench.evaluation.reconstruct import RunSettings
from tokbench.evaluation.steps import plain_step
from tokbench.evaluation.tasks import Task
from tokbench.metrics.batch import DerivedCache
from tokbench.timing import exact_kernels
from tokbench.tokenizers.base import ImageModel
from tokbench.tokenizers.contract import NUM_PROBED

VISIBLE = 0.5 / 255
"""The smallest visible difference of images in [0, 1]: half an 8-bit level. Rounding errors of a network's kernels are
far smaller."""


def draws_noise(model: ImageModel, task: Task, stream: ImageStream, device: str, seed: int) -> bool:
    """Return whether the first images are visibly different with another seed, as for a decoder or generator that
    samples.

    model: on the device, as `evaluate` leaves it. stream: the images that `evaluate` used. The task's own changes to
    the tokens (`perturb`) are left out, since their noise is drawn on the CPU and is the same on every device. Raises
    whatever the model raises.
    """
    first = next(iter(stream.batches(NUM_PROBED)), None)
    if first is None:
        return False
    step = plain_step(model) if task.paired else task.steps(model)[0]
    with exact_kernels():
        ours, other = (
            task.run(step, model, first, RunSettings(device, NUM_PROBED, each), DerivedCache()).require("image")
            for each in (seed, seed + 1)
        )
    return bool((ours - other).abs().max() > VISIBLE)
