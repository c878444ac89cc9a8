"""What token reduction does to a classifier: accuracy on the same images, operations, and time against the whole."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tokbench.errors import DataError, UsageError
from tokbench.pruning.flops import Counts, dense, flops
from tokbench.pruning.models import Labelled
from tokbench.pruning.paired_timing import STEADY, PairedTiming, time_in_turns
from tokbench.pruning.pruner import Pruner, PruningState, Training
from tokbench.pruning.result import BatchTiming, Estimate, Speedup
from tokbench.pruning.vit import Kernel, images_like, recognise
from tokbench.stats.bootstrap import bootstrap_pairs, mean, metric_entry, round_significant, share_interval
from tokbench.timing import measure_peak_memory

CHUNK = 50
"""Images of a pass for accuracy."""
TRIES = 5
"""Timings of what choosing costs."""


@dataclass(frozen=True)
class Candidate:
    """One way to run a classifier: `forward` gives logits for images of the subject; `vit` is the transformer inside.

    keep: None where there is nothing to set. trained: what its training was, empty for none. network: its name, where
    it is not the subject's own.
    """

    method: str
    title: str
    keep: float | None
    forward: nn.Module
    vit: nn.Module
    pruner: Pruner | None = None
    training: Training = "none"
    trained: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    network: str = ""

    @contextmanager
    def ready(self, kernel: Kernel, round_to: int = 1) -> Iterator[PruningState | None]:
        """Reduced as long as the `with` block lasts, with one kernel for attention."""
        with with_kernel(self.vit, kernel):
            if self.pruner is None:
                yield None
            else:
                with self.pruner.applied_to(self.vit, self.keep or 1.0, kernel=kernel, round_to=round_to) as run:
                    yield run


@contextmanager
def with_kernel(vit: nn.Module, kernel: Kernel) -> Iterator[None]:
    """timm's attention by one kernel; as before behind the `with` block."""
    attentions = [block.attn for block in recognise(vit).blocks]
    before = [attention.fused_attn for attention in attentions]
    try:
        for attention in attentions:
            attention.fused_attn = kernel == "sdpa"
        yield
    finally:
        for attention, fused in zip(attentions, before, strict=True):
            attention.fused_attn = fused


@dataclass(frozen=True)
class Predictions:
    """Of N images: positions, labels, and the five likeliest classes, the likeliest first, (N, 5)."""

    index: np.ndarray
    labels: np.ndarray
    top: np.ndarray

    @property
    def first(self) -> np.ndarray:
        """Whether the likeliest class is right, (N,), 1 or 0."""
        return (self.top[:, 0] == self.labels).astype(float)

    @property
    def fifth(self) -> np.ndarray:
        """Whether one of the five is right."""
        return (self.top == self.labels[:, None]).any(1).astype(float)


@torch.inference_mode()
def predict(
    arm: Candidate, images: Labelled, device: str, kernel: Kernel, round_to: int, told: Callable[[int, int], None]
) -> tuple[Predictions, Counts]:
    """Over all images of a data set; and the tokens of each block in the last pass, as recorded.

    Raises DataError where not one image could be read.
    """
    index, labels, top = [], [], []
    counts: Counts = dense(recognise(arm.vit).sizes)
    with arm.ready(kernel, round_to) as run:
        for positions, seeds, pixels, classes in images.batches(CHUNK, device):
            if run is not None:
                run.seeds = seeds
            logits = arm.forward(pixels)
            top.append(logits.topk(min(5, logits.shape[1]), dim=1).indices.cpu().numpy())
            index.append(positions.numpy())
            labels.append(classes.numpy())
            told(sum(map(len, index)), len(images.dataset))
        images.dataset.refuse_empty()
        if run is not None:
            counts = run.planned
    return Predictions(np.concatenate(index), np.concatenate(labels), np.concatenate(top)), counts


def accuracy(arm: Predictions, whole: Predictions) -> dict[str, Estimate]:
    """Top-1, top-5, how often the likeliest class is the whole network's, and what top-1 and top-5 lost, paired by
    image.

    Raises DataError where the two saw other images.
    """
    if not np.array_equal(arm.index, whole.index):
        raise DataError("some images could be read in one pass and not in the other; run the same command again")
    agree = (arm.top[:, 0] == whole.top[:, 0]).astype(float)
    numbers = {"top1": arm.first, "top5": arm.fifth, "agreement": agree}
    lost = {"top1_gap": (whole.first, arm.first), "top5_gap": (whole.fifth, arm.fifth)}
    told = {name: metric_entry(mean(values), share_interval(values)) for name, values in numbers.items()}
    told |= {
        name: metric_entry(mean(own) - mean(all_), bootstrap_pairs(all_, own, 0)) for name, (all_, own) in lost.items()
    }
    return {name: Estimate(**entry) for name, entry in told.items()}


@torch.inference_mode()
def counted_flops(arm: Candidate, images: Tensor, round_to: int = 1) -> int:
    """Of one image by PyTorch's counter of matrix products, attention computed by them: a check of the formula."""
    with arm.ready("eager", round_to), FlopCounterMode(display=False) as counter:
        arm.forward(images[:1])
    return int(counter.get_total_flops())


def _tidy(value: float) -> float:
    """Ten digits."""
    return float(f"{value:.10g}")


def _speedup(made: PairedTiming) -> Speedup:
    low, high = made.interval()
    return Speedup(
        _tidy(made.ratio), _tidy(low), _tidy(high), _tidy(made.control), made.measured,
        _tidy(float(np.median(made.first)) * 1000), _tidy(float(np.median(made.second)) * 1000), made.second.size,
    )  # fmt: skip


def disturbed(made: BatchTiming) -> bool:
    """Whether a control is off: then something else was at work on the machine."""
    return any(abs(one.control - 1) > STEADY for one in (made.speedup, made.speedup_same_kernel))


@torch.inference_mode()
def best_kernel(whole: Candidate, batch: int, device: str, repetitions: int) -> Kernel:
    """The one by which the whole network is faster at this batch size, both timed in turns."""
    images, other = images_like(recognise(whole.vit), batch), copy.deepcopy(whole.vit)
    with with_kernel(whole.vit, "sdpa"), with_kernel(other, "eager"):
        made = time_in_turns(partial(whole.vit, images), partial(other, images), repetitions, device)
    return "eager" if made.ratio > 1 else "sdpa"


@torch.inference_mode()
def pace(
    arm: Candidate,
    whole: Candidate,
    batch: int,
    device: str,
    best: Kernel,
    kernel: Kernel,
    repetitions: int,
    round_to: int = 1,
) -> BatchTiming:
    """Time of one batch against the whole network's by its `best` kernel and by the arm's `kernel`, in turns.

    Raises UsageError where `whole` is not a network of its own.
    """
    images = images_like(recognise(whole.vit), batch)
    if arm.vit is whole.vit:
        raise UsageError("what is timed against itself needs a copy")
    with arm.ready(kernel, round_to) as state:
        duels = {}
        for tried in dict.fromkeys((best, kernel)):
            with whole.ready(tried):
                duels[tried] = time_in_turns(
                    partial(whole.forward, images), partial(arm.forward, images), repetitions, device
                )
                if tried == best:
                    whole_peak = measure_peak_memory(partial(whole.forward, images), device)[1]
        peak = measure_peak_memory(partial(arm.forward, images), device)[1]
        spent = _selecting(arm, state, images)
    return BatchTiming(
        batch, best, _speedup(duels[best]), _speedup(duels[kernel]), _tidy(spent * 1000),
        round_significant(peak) if peak is not None else None,
        round_significant(whole_peak) if whole_peak is not None else None,
    )  # fmt: skip


def _selecting(arm: Candidate, state: PruningState | None, images: Tensor) -> float:
    """Median seconds that choosing and blending take in one pass."""
    if state is None:
        return 0.0
    state.timing, spent = True, []
    for _ in range(TRIES):
        arm.forward(images)
        spent.append(state.selector_seconds)
    state.timing = False
    return float(np.median(spent))


def gflops(counts: Counts, arm: Candidate, whole: Candidate) -> tuple[float, float]:
    """Operations by the formula, of the arm and of the whole network, in GFLOPs an image."""
    own, theirs = recognise(arm.vit).sizes, recognise(whole.vit).sizes
    layers = arm.pruner.flops(own, counts) if arm.pruner else 0
    return (flops(own, counts) + layers) / 1e9, flops(theirs, dense(theirs)) / 1e9


def check_same(vit: nn.Module, pruner: Pruner) -> None:
    """Nothing reduced, a network must say what it says by itself. Raises UsageError where it does not: then its blocks
    compute what this package does not know."""
    images = images_like(recognise(vit), 2)
    with torch.inference_mode(), with_kernel(vit, "sdpa"):
        alone = vit(images)
        with pruner.applied_to(vit, 1.0):
            gap = float((vit(images) - alone).abs().max())
    if not gap <= 1e-4 * max(1.0, float(alone.abs().max())):
        raise UsageError(f"{type(vit).__name__} is not recognised: with all tokens its logits move by {gap:g}")
