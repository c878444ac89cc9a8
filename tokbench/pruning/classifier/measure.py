"""Measurements of a reduced classifier: accuracy on the same images, FLOPs, and time relative to the full network."""

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
from tokbench.pruning.claims import Claim
from tokbench.pruning.classifier.models import LabelledImages
from tokbench.pruning.classifier.result import ClassifierTiming
from tokbench.pruning.flops import Counts, dense, flops
from tokbench.pruning.paired_timing import TRIES, peak_mib, rounded, speedup_of, time_alternately
from tokbench.pruning.pruner import Pruner, PruningState, Training
from tokbench.pruning.result import Estimate
from tokbench.pruning.vit import Kernel, images_like, recognise
from tokbench.stats.bootstrap import bootstrap_pairs, mean, metric_entry, share_interval

CHUNK = 50
"""Images per batch when measuring accuracy."""


@dataclass(frozen=True)
class Candidate:
    """One way to run a classifier: `forward` maps images to logits; `vit` is the transformer inside.

    keep: None if the candidate has no keep ratio. trained: its training record, empty if it was not trained. network:
    its name, if it is not the benchmarked network. claims: those that its TOML file tests as an ablation.
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
    claims: tuple[Claim, ...] = ()

    @property
    def method_title(self) -> str:
        return self.pruner.title if self.pruner else self.title.split(",")[0]

    @contextmanager
    def ready(self, kernel: Kernel, round_to: int = 1) -> Iterator[PruningState | None]:
        """Apply the reduction and the attention kernel inside the `with` block."""
        with with_kernel(self.vit, kernel):
            if self.pruner is None:
                yield None
            else:
                with self.pruner.applied_to(self.vit, self.keep or 1.0, kernel=kernel, round_to=round_to) as run:
                    yield run


@contextmanager
def with_kernel(vit: nn.Module, kernel: Kernel) -> Iterator[None]:
    """Use one attention kernel in a timm model inside the `with` block."""
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
    """Predictions on N images: positions (N,), labels (N,), and the five most likely classes in order (N, 5)."""

    index: np.ndarray
    labels: np.ndarray
    top: np.ndarray

    @property
    def first(self) -> np.ndarray:
        """Whether the most likely class is correct, (N,), 1 or 0."""
        return (self.top[:, 0] == self.labels).astype(float)

    @property
    def fifth(self) -> np.ndarray:
        """Whether one of the five most likely classes is correct, (N,), 1 or 0."""
        return (self.top == self.labels[:, None]).any(1).astype(float)


@torch.inference_mode()
def predict(
    candidate: Candidate,
    images: LabelledImages,
    device: str,
    kernel: Kernel,
    round_to: int,
    progress: Callable[[int, int], None],
) -> tuple[Predictions, Counts]:
    """Return the predictions on all images of a dataset, and the recorded token counts of each block.

    Raises DataError if no image could be read.
    """
    index, labels, top = [], [], []
    counts: Counts = dense(recognise(candidate.vit).sizes)
    with candidate.ready(kernel, round_to) as run:
        for positions, seeds, pixels, classes in images.batches(CHUNK, device):
            if run is not None:
                run.seeds = seeds
            logits = candidate.forward(pixels)
            top.append(logits.topk(min(5, logits.shape[1]), dim=1).indices.cpu().numpy())
            index.append(positions.numpy())
            labels.append(classes.numpy())
            progress(sum(map(len, index)), len(images.dataset))
        images.dataset.refuse_empty()
        if run is not None:
            counts = run.planned
    return Predictions(np.concatenate(index), np.concatenate(labels), np.concatenate(top)), counts


def accuracy(candidate: Predictions, whole: Predictions) -> dict[str, Estimate]:
    """Return top-1, top-5, agreement of the most likely class with the full network, and paired losses of both.

    Raises DataError if the two predictions cover different images.
    """
    if not np.array_equal(candidate.index, whole.index):
        raise DataError("some images could be read in only one of two passes; run the command again")
    agree = (candidate.top[:, 0] == whole.top[:, 0]).astype(float)
    numbers = {"top1": candidate.first, "top5": candidate.fifth, "agreement": agree}
    lost = {"top1_gap": (whole.first, candidate.first), "top5_gap": (whole.fifth, candidate.fifth)}
    entries = {name: metric_entry(mean(values), share_interval(values)) for name, values in numbers.items()}
    entries |= {
        name: metric_entry(mean(own) - mean(all_), bootstrap_pairs(all_, own, 0)) for name, (all_, own) in lost.items()
    }
    return {name: Estimate(**entry) for name, entry in entries.items()}


@torch.inference_mode()
def counted_flops(candidate: Candidate, images: Tensor, round_to: int = 1) -> int:
    """Return the FLOPs of one image by PyTorch's counter, with eager attention; this checks the formula."""
    with candidate.ready("eager", round_to), FlopCounterMode(display=False) as counter:
        candidate.forward(images[:1])
    return int(counter.get_total_flops())


@torch.inference_mode()
def best_kernel(whole: Candidate, batch: int, device: str, repetitions: int) -> Kernel:
    """Return the kernel with which the full network is faster at this batch size, by interleaved timing."""
    images, other = images_like(recognise(whole.vit), batch), copy.deepcopy(whole.vit)
    with with_kernel(whole.vit, "sdpa"), with_kernel(other, "eager"):
        timing = time_alternately(partial(whole.vit, images), partial(other, images), repetitions, device)
    return "eager" if timing.ratio > 1 else "sdpa"


@torch.inference_mode()
def time_candidate(
    candidate: Candidate,
    whole: Candidate,
    batch: int,
    device: str,
    best: Kernel,
    kernel: Kernel,
    repetitions: int,
    round_to: int = 1,
) -> ClassifierTiming:
    """Time one batch of the candidate, interleaved with the full network.

    The full network runs with its `best` kernel and with the candidate's `kernel`. Raises UsageError if both share one
    network.
    """
    images = images_like(recognise(whole.vit), batch)
    if candidate.vit is whole.vit:
        raise UsageError("timing a network against itself needs a copy of it")
    with candidate.ready(kernel, round_to) as state:
        timings = {}
        for tried in dict.fromkeys((best, kernel)):
            with whole.ready(tried):
                timings[tried] = time_alternately(
                    partial(whole.forward, images), partial(candidate.forward, images), repetitions, device
                )
                if tried == best:
                    whole_peak = peak_mib(partial(whole.forward, images), device)
        peak = peak_mib(partial(candidate.forward, images), device)
        spent = _selection_seconds(candidate, state, images)
    return ClassifierTiming(
        batch=batch,
        best_kernel=best,
        speedup=speedup_of(timings[best]),
        speedup_same_kernel=speedup_of(timings[kernel]),
        selector_ms=rounded(spent * 1000),
        peak_mib=peak,
        whole_peak_mib=whole_peak,
    )


def _selection_seconds(candidate: Candidate, state: PruningState | None, images: Tensor) -> float:
    """Return the median seconds per pass that selecting and merging tokens take."""
    if state is None:
        return 0.0
    state.timing, spent = True, []
    for _ in range(TRIES):
        candidate.forward(images)
        spent.append(state.selector_seconds)
    state.timing = False
    return float(np.median(spent))


def gflops(counts: Counts, candidate: Candidate, whole: Candidate) -> tuple[float, float]:
    """Return the GFLOPs per image of the candidate and of the full network, by FORMULA."""
    own, theirs = recognise(candidate.vit).sizes, recognise(whole.vit).sizes
    layers = candidate.pruner.flops(own, counts) if candidate.pruner else 0
    return (flops(own, counts) + layers) / 1e9, flops(theirs, dense(theirs)) / 1e9


def check_same(vit: nn.Module, pruner: Pruner) -> None:
    """Check that a pruner at keep 1 does not change the logits.

    Raises UsageError otherwise: the blocks then compute something that this package does not reproduce.
    """
    images = images_like(recognise(vit), 2)
    with torch.inference_mode(), with_kernel(vit, "sdpa"):
        alone = vit(images)
        with pruner.applied_to(vit, 1.0):
            gap = float((vit(images) - alone).abs().max())
    if not gap <= 1e-4 * max(1.0, float(alone.abs().max())):
        raise UsageError(
            f"{type(vit).__name__} is not supported: its logits change by {gap:g} although all tokens are kept"
        )
