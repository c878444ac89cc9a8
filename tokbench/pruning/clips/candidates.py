"""Resolution of METHOD names to ways to run a classifier of clips."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from tokbench.errors import UsageError
from tokbench.io.hashing import sha256_of
from tokbench.pruning.claims import Claim, claims_of_network
from tokbench.pruning.clips.methods import METHODS, ClipReducer
from tokbench.pruning.clips.network import ClipNetwork
from tokbench.pruning.kinds import kind_of_network
from tokbench.tokenizers.registry import network_files
from tokbench.tokenizers.training_record import read_record
from tokbench.training.zoo import open_network
from tokbench.weights.shards import shard_paths

NUMBERS = ("top1",)
"""The fields of a row that claims compare."""


@dataclass(frozen=True)
class LoadedNetwork:
    """A trained network in eval mode. weights: SHA-256 by file. training: its training record. claims: those that its
    TOML file tests as an ablation."""

    name: str
    network: ClipNetwork
    weights: dict[str, str]
    training: dict[str, Any]
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class ClipCandidate:
    """One way to run a classifier.

    keep: share of the patch tokens that are left by `reducer`; None for a network as it was trained. loaded: the
    network of the table, or another one with its own weights, of which `weights`, `trained` and `claims` are.
    """

    method: str
    title: str
    keep: float | None
    reducer: ClipReducer | None
    loaded: LoadedNetwork
    training: str = "none"
    weights: dict[str, str] = field(default_factory=dict)
    trained: dict[str, Any] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()

    @property
    def method_title(self) -> str:
        return self.title

    def forward(self, clips: Tensor, masks: Tensor | None) -> Tensor:
        """Return the logits, as `ClipNetwork.forward`."""
        with self.loaded.network.using(self.reducer, self.keep or 1.0):
            logits: Tensor = self.loaded.network(clips, masks)
        return logits

    def tokens(self, clips: Tensor, masks: Tensor | None) -> Tensor:
        """Return the number of tokens of each clip, as `ClipNetwork.tokens`."""
        with self.loaded.network.using(self.reducer, self.keep or 1.0):
            return self.loaded.network.tokens(clips, masks)

    def flops(self, frames: int) -> int:
        """Return the FLOPs of one clip, as `ClipNetwork.flops`."""
        with self.loaded.network.using(self.reducer, self.keep or 1.0):
            return self.loaded.network.flops(frames)


def networks(root: Path | None) -> list[str]:
    """Return the names of the classifiers of clips in adapters/*/network.py."""
    return [name for name, toml in network_files(root).items() if kind_of_network(name, toml) == "clip"]


def known(root: Path | None) -> list[str]:
    """Return all METHOD names."""
    return [*METHODS, *networks(root)]


def load_network(name: str, device: str, root: Path | None) -> LoadedNetwork:
    """Load a trained network. Raises MissingWeights, and UsageError for other networks."""
    if name not in networks(root):
        raise UsageError(f"unknown classifier of clips '{name}'; available: {', '.join(networks(root))}")
    toml = network_files(root)[name]
    variant, network = open_network(name, toml)
    if not isinstance(network, ClipNetwork):
        raise UsageError(f"{name} is a {type(network).__name__}, not a classifier of clips")
    weights = {path.name: sha256_of(path) for path in shard_paths(variant.file)}
    network.to(device).eval().requires_grad_(False)
    return LoadedNetwork(name, network, weights, read_record(toml), claims_of_network(name, toml, NUMBERS))


def candidates_of(
    name: str, full: LoadedNetwork, keeps: Sequence[float], device: str, root: Path | None
) -> Iterator[ClipCandidate]:
    """Yield one candidate per keep of a method, or a single one of another network, as it was trained.

    Every candidate has its own copy of the network, which interleaved timing needs. Raises UsageError for an unknown
    name or an unsuitable keep, MissingWeights for a network that was not trained.
    """
    if name in METHODS:
        reducer = METHODS[name]()
        own = LoadedNetwork(full.name, copy.deepcopy(full.network), full.weights, full.training, ())
        for keep in keeps:
            if keep == 1:
                raise UsageError("at keep 1 there is nothing to reduce; use a smaller keep")
            yield ClipCandidate(name, reducer.title, keep, reducer, own)
    elif name == full.name:
        raise UsageError(f"{name} is the model itself, with which all rows are compared")
    elif name in networks(root):
        other = load_network(name, device, root)
        reducer_of, kept = other.network.trained_with
        yield ClipCandidate(
            name, name, kept, reducer_of, other, "weights", other.weights, other.training, other.claims
        )  # fmt: skip
    else:
        raise UsageError(f"unknown method '{name}'; available: {', '.join(known(root))}")
