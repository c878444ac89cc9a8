"""Trained networks of adapters/*/network.py in the benchmark: how they are loaded, and what rows state about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import nn

from tokbench.errors import UsageError
from tokbench.io.hashing import sha256_of
from tokbench.pruning.claims import Claim, claims_of_network
from tokbench.pruning.kind_names import kind_of_network
from tokbench.tokenizers.registry import network_files
from tokbench.tokenizers.training_record import read_record
from tokbench.training.zoo import open_network
from tokbench.weights.shards import shard_paths

N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class TrainedNetwork(Generic[N]):
    """A trained network in eval mode.

    weights: SHA-256 by file. training: its training record. claims: those that its TOML file tests as an ablation.
    """

    name: str
    network: N
    weights: dict[str, str]
    training: dict[str, Any]
    claims: tuple[Claim, ...] = ()

    @property
    def profile(self) -> str | None:
        """The profile of its training, None if it is unknown."""
        return profile_of(self.training)


@dataclass(frozen=True)
class NetworkCandidate(Generic[N]):
    """One way to run a network.

    keep: None if it has no keep ratio. loaded: the network that is run. own: whether it is another network than that of
    the table, with its own weights, training and claims.
    """

    method: str
    title: str
    keep: float | None
    loaded: TrainedNetwork[N]
    own: bool = False

    @property
    def method_title(self) -> str:
        return self.title

    @property
    def training(self) -> str:
        return "weights" if self.own else "none"

    @property
    def weights(self) -> dict[str, str]:
        return self.loaded.weights if self.own else {}

    @property
    def claims(self) -> tuple[Claim, ...]:
        return self.loaded.claims if self.own else ()

    def row_fields(self) -> dict[str, Any]:
        """Return the fields of a NetworkRow that do not depend on a measurement."""
        trained, unknown = (self.loaded.training, None) if self.own else ({}, 0)
        return {"title": self.title, "network": self.loaded.name, "weights": self.weights, "pace": []} | {
            "training_seconds": trained.get("seconds", unknown), "training_images": trained.get("images", unknown),
            "training_profile": profile_of(trained),
        }  # fmt: skip


def profile_of(record: dict[str, Any]) -> str | None:
    """Return the profile of a training from its record, None if it is unknown."""
    profile: str | None = record.get("recipe", {}).get("profile")
    return profile


def networks_of_kind(kind: str, root: Path | None) -> list[str]:
    """Return the names of the networks of one kind in adapters/*/network.py."""
    return [name for name, toml in network_files(root).items() if kind_of_network(name, toml) == kind]


def load_trained(
    name: str, kind: str, expected: type[N], numbers: Sequence[str], device: str, root: Path | None
) -> TrainedNetwork[N]:
    """Load a trained network of one kind. numbers: the fields of a row that claims compare.

    Raises MissingWeights, and UsageError for an unknown name or a network of another class.
    """
    known = networks_of_kind(kind, root)
    if name not in known:
        raise UsageError(f"'{name}' is no network of the kind {kind}; available: {', '.join(known) or 'none'}")
    toml = network_files(root)[name]
    variant, network = open_network(name, toml)
    if not isinstance(network, expected):
        raise UsageError(
            f"{name} is a {type(network).__name__}, not a {expected.__name__}, although its TOML file has prune_kind = "
            f"'{kind}'"
        )
    weights = {path.name: sha256_of(path) for path in shard_paths(variant.file)}
    network.to(device).eval().requires_grad_(False)
    return TrainedNetwork(name, network, weights, read_record(toml), claims_of_network(name, toml, numbers))
