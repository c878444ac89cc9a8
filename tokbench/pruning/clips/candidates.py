"""Resolution of METHOD names to ways to run a classifier of clips."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from tokbench.errors import UsageError
from tokbench.pruning.clips.methods import METHODS, ClipReducer
from tokbench.pruning.clips.network import ClipNetwork
from tokbench.pruning.trained import NetworkCandidate, TrainedNetwork, load_trained, networks_of_kind

KEY = "clip"
"""The key of the kind in `tokbench.pruning.kind_names.KINDS`."""

NUMBERS = ("top1",)
"""The fields of a row that claims compare."""


@dataclass(frozen=True)
class ClipCandidate(NetworkCandidate[ClipNetwork]):
    """One way to run a classifier. keep: share of the patch tokens that are left by `reducer`; None for a network as it
    was trained."""

    reducer: ClipReducer | None = None

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


def known(root: Path | None) -> list[str]:
    """Return all METHOD names."""
    return [*METHODS, *networks_of_kind(KEY, root)]


def load_network(name: str, device: str, root: Path | None) -> TrainedNetwork[ClipNetwork]:
    """Load a trained classifier of clips. Raises MissingWeights, and UsageError for other networks."""
    return load_trained(name, KEY, ClipNetwork, NUMBERS, device, root)  # type: ignore[type-abstract]


def candidates_of(
    name: str, full: TrainedNetwork[ClipNetwork], keeps: Sequence[float], device: str, root: Path | None
) -> Iterator[ClipCandidate]:
    """Yield one candidate per keep of a method, or a single one of another network, as it was trained.

    Every candidate has its own copy of the network, which interleaved timing needs. Raises UsageError for an unknown
    name or an unsuitable keep, MissingWeights for a network that was not trained.
    """
    if name in METHODS:
        reducer, copied = METHODS[name](), replace(full, network=copy.deepcopy(full.network))
        for keep in keeps:
            if keep == 1:
                raise UsageError("at keep 1 there is nothing to reduce; use a smaller keep")
            yield ClipCandidate(name, reducer.title, keep, copied, reducer=reducer)
    elif name == full.name:
        raise UsageError(f"{name} is the model itself, with which all rows are compared")
    elif name in networks_of_kind(KEY, root):
        other = load_network(name, device, root)
        reducer_of, kept = other.network.trained_with
        yield ClipCandidate(name, name, kept, other, own=True, reducer=reducer_of)
    else:
        raise UsageError(f"unknown method '{name}'; available: {', '.join(known(root))}")
