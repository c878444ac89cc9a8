"""Top-k attention: keeps the tokens that receive most attention, averaged over heads and queries (needs no CLS)."""

from __future__ import annotations

from torch import Tensor

from tokbench.pruning.pruner import Pruner, PruningState, best, pick
from tokbench.pruning.vit import Attended


class TopKAttention(Pruner):
    """The criterion of FastV (arXiv:2403.06764) in a vision transformer. Computing the map costs O(N^2 d)."""

    title, source = "top-k attention", "after FastV, arXiv:2403.06764"

    def reduce(self, tokens: Tensor, seen: Attended, count: int, run: PruningState) -> Tensor:
        received = seen.map().mean((1, 2))[:, run.prefix :]
        return pick(tokens, best(received, count), run.prefix)
