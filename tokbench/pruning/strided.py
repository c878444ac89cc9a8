"""Strided: keeps evenly spaced tokens, a control that is independent of the image."""

from __future__ import annotations

import torch
from torch import Tensor

from tokbench.pruning.pruner import Pruner, PruningState, pick
from tokbench.pruning.vit import Attended


class Strided(Pruner):
    """Keeps evenly spaced patch tokens."""

    title, source = "strided", "control"

    def reduce(self, tokens: Tensor, seen: Attended, count: int, run: PruningState) -> Tensor:
        return pick(tokens, spaced(tokens.shape[1] - run.prefix, count, tokens).expand(len(tokens), -1), run.prefix)


def spaced(n: int, count: int, like: Tensor) -> Tensor:
    """Return `count` of n positions, at the centres of `count` equal parts, (count,)."""
    return ((torch.arange(count, device=like.device) * 2 + 1) * n).div(2 * count, rounding_mode="floor")
