"""Resolution of METHOD names to ways to run a detector."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from tokbench.errors import UsageError
from tokbench.nn.detection import corners
from tokbench.nn.detr import FocusDETR
from tokbench.nn.focus import Selection
from tokbench.pruning.detector.average_precision import NUMBERS, Detections
from tokbench.pruning.trained import NetworkCandidate, TrainedNetwork, load_trained, networks_of_kind

KEY = "detector"
"""The key of the kind in `tokbench.pruning.kind_names.KINDS`."""

SELECTIONS: dict[Selection, str] = {
    "learned": "learned foreground scores",
    "random": "random, control",
    "norm": "norm of the features",
}
"""The titles of the selections that every detector can use."""


@dataclass(frozen=True)
class DetectorCandidate(NetworkCandidate[FocusDETR]):
    """One way to run a detector. keep: share of the tokens that the first layer updates; None if all layers update all
    tokens."""

    selection: Selection = "learned"

    @contextmanager
    def ready(self) -> Iterator[FocusDETR]:
        """Update only the chosen tokens inside the `with` block; yield the network."""
        network = self.loaded.network
        with applied(network, self.keep or 1.0, self.selection):
            yield network


def known(root: Path | None) -> list[str]:
    """Return all METHOD names."""
    return [*SELECTIONS, *networks_of_kind(KEY, root)]


def load_detector(name: str, device: str, root: Path | None) -> TrainedNetwork[FocusDETR]:
    """Load a trained detector. Raises MissingWeights, and UsageError for other networks."""
    return load_trained(name, KEY, FocusDETR, NUMBERS, device, root)


def candidates_of(
    name: str, full: TrainedNetwork[FocusDETR], keeps: Sequence[float], device: str, root: Path | None
) -> Iterator[DetectorCandidate]:
    """Yield one candidate per keep of a selection, or a single one of another detector, at the keep of its training.

    Every candidate has its own copy of the network, which interleaved timing needs. Raises UsageError for unknown
    names and MissingWeights if the detector was not trained.
    """
    if name in SELECTIONS:
        selection = next(one for one in SELECTIONS if one == name)
        copied = replace(full, network=copy.deepcopy(full.network))
        for keep in keeps:
            yield DetectorCandidate(name, SELECTIONS[selection], keep, copied, selection=selection)
    elif name in networks_of_kind(KEY, root):
        other = load_detector(name, device, root)
        encoder = other.network.encoder
        keep_of = encoder.keep if encoder.keep < 1 else None
        yield DetectorCandidate(name, name, keep_of, other, own=True, selection=encoder.selection)
    else:
        raise UsageError(f"unknown method '{name}'; available: {', '.join(known(root))}")


@contextmanager
def applied(network: FocusDETR, keep: float, selection: Selection) -> Iterator[None]:
    """Update this share of the tokens, by this selection, inside the `with` block."""
    encoder = network.encoder
    before = encoder.keep, encoder.selection
    encoder.keep, encoder.selection = keep, selection
    try:
        yield
    finally:
        encoder.keep, encoder.selection = before


@torch.inference_mode()
def detect(network: FocusDETR, images: Tensor, seeds: Sequence[int]) -> list[Detections]:
    """Return the best pairs of query and class in images (B, 3, H, W) in [-1, 1], as many as there are queries.

    seeds: one per image, for the random selection.
    """
    logits, boxes = network(images, seeds)
    scores, places = logits.sigmoid().flatten(1).topk(logits.shape[1], dim=1)
    classes = logits.shape[2]
    return [
        Detections(own.cpu().numpy(), (place % classes).cpu().numpy(), corners(box[place // classes]).cpu().numpy())
        for own, place, box in zip(scores, places, boxes, strict=True)
    ]
