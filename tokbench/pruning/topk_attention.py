"""topk_attention: the tokens that all others look at most stay, mean over heads and queries; no CLS token is needed."""

from __future__ import annotations

from torch import Tensor

from tokbench.pruning.pruner import Pruner, PruningState, best, pick
from tokbench.pruning.vit import Attended


class TopKAttention(Pruner):
    """The criterion of FastV (arXiv:2403.06764), in a vision transformer. O(N^2 d) for the map."""

    title, source = "top-k attention", "after FastV, arXiv:2403.06764"

    def reduce(self, tokens: Tensor, seen: Attended, count: int, run: PruningState) -> Tensor:
        received = seen.map().mean((1, 2))[:, run.prefix :]
        return pick(tokens, best(received, count), run.prefix)
