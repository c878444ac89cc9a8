"""Resolution of METHOD names to ways to run a detector."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokbench.errors import UsageError
from tokbench.io.hashing import sha256_of
from tokbench.nn.detection import corners
from tokbench.nn.detr import FocusDETR
from tokbench.nn.focus import Selection
from tokbench.pruning.claims import Claim, claims_of_network
from tokbench.pruning.detector.average_precision import NUMBERS, Detections
from tokbench.pruning.kinds import kind_of_network
from tokbench.tokenizers.registry import network_files
from tokbench.tokenizers.training_record import read_record
from tokbench.training.zoo import open_network
from tokbench.weights.shards import shard_paths

SELECTIONS: dict[Selection, str] = {
    "learned": "learned foreground scores",
    "random": "random, control",
    "norm": "norm of the features",
}
"""The titles of the selections that every detector can use."""


@dataclass(frozen=True)
class Detector:
    """A trained detector in eval mode.

    weights: SHA-256 by file. training: its training record. claims: those that its TOML file tests as an ablation.
    """

    name: str
    network: FocusDETR
    weights: dict[str, str]
    training: dict[str, Any]
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class DetectorCandidate:
    """One way to run a detector.

    keep: share of the tokens that the first layer updates; None if all layers update all tokens. detector: that of the
    table, or another one with its own weights, of which `weights`, `trained` and `claims` are.
    """

    method: str
    title: str
    keep: float | None
    selection: Selection
    detector: Detector
    training: str = "none"
    weights: dict[str, str] = field(default_factory=dict)
    trained: dict[str, Any] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()

    @property
    def method_title(self) -> str:
        return self.title

    @contextmanager
    def ready(self) -> Iterator[FocusDETR]:
        """Update only the chosen tokens inside the `with` block; yield the network."""
        network = self.detector.network
        with applied(network, self.keep or 1.0, self.selection):
            yield network


def detectors(root: Path | None) -> list[str]:
    """Return the names of the detectors in adapters/*/network.py."""
    return [name for name, toml in network_files(root).items() if kind_of_network(name, toml) == "detector"]


def known(root: Path | None) -> list[str]:
    """Return all METHOD names."""
    return [*SELECTIONS, *detectors(root)]


def load_detector(name: str, device: str, root: Path | None) -> Detector:
    """Load a trained detector. Raises MissingWeights, and UsageError for other networks."""
    if name not in detectors(root):
        raise UsageError(f"unknown detector '{name}'; available: {', '.join(detectors(root))}")
    toml = network_files(root)[name]
    variant, network = open_network(name, toml)
    if not isinstance(network, FocusDETR):
        raise UsageError(f"{name} is a {type(network).__name__}, not a detector whose tokens can be reduced")
    weights = {path.name: sha256_of(path) for path in shard_paths(variant.file)}
    network.to(device).eval().requires_grad_(False)
    return Detector(name, network, weights, read_record(toml), claims_of_network(name, toml, NUMBERS))


def candidates_of(
    name: str, full: Detector, keeps: Sequence[float], device: str, root: Path | None
) -> Iterator[DetectorCandidate]:
    """Yield one candidate per keep of a selection, or a single one of another detector, at the keep of its training.

    Every candidate has its own copy of the network, which interleaved timing needs. Raises UsageError for unknown
    names and MissingWeights if the detector was not trained.
    """
    if name in SELECTIONS:
        selection = next(one for one in SELECTIONS if one == name)
        network = copy.deepcopy(full.network)
        own = Detector(full.name, network, full.weights, full.training, ())
        for keep in keeps:
            yield DetectorCandidate(name, SELECTIONS[selection], keep, selection, own)
    elif name in detectors(root):
        other = load_detector(name, device, root)
        encoder = other.network.encoder
        yield DetectorCandidate(
            name,
            name,
            encoder.keep if encoder.keep < 1 else None,
            encoder.selection,
            other,
            "weights",
            other.weights,
            other.training,
            other.claims,
        )
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
