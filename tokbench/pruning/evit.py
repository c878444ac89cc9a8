"""EViT: keeps the tokens that CLS attends to most and fuses the others (Liang et al., ICLR 2022, arXiv:2202.07800)."""

from __future__ import annotations

import torch
from torch import Tensor

from tokbench.pruning.pruner import Pruner, PruningState, best, pick, staged
from tokbench.pruning.vit import Attended, Sizes


class EViT(Pruner):
    """Each stage keeps ceil(keep n) of n tokens, which include fused tokens of earlier stages.

    fuse: whether the other tokens are fused into one additional token, weighted by the attention of CLS (not
    normalized, as in the authors' code), or dropped. The scores need one row of the attention map: O(N d).
    """

    title, source = "EViT", "arXiv:2202.07800"
    needs_cls = True

    def __init__(self, fuse: bool = True) -> None:
        self.fuse = fuse

    def plan(self, sizes: Sizes, keep: float) -> list[int]:
        return staged(sizes, keep, extra=int(self.fuse))

    def reduce(self, tokens: Tensor, seen: Attended, count: int, run: PruningState) -> Tensor:
        scores = seen.cls()[:, run.prefix :]
        chosen = best(scores, count - int(self.fuse))
        kept = pick(tokens, chosen, run.prefix)
        if not self.fuse:
            return kept
        return torch.cat([kept, fused(tokens[:, run.prefix :], scores, chosen)], 1)


def fused(tokens: Tensor, scores: Tensor, chosen: Tensor) -> Tensor:
    """Return the sum of score times token over the tokens (B, n, D) that are not `chosen` (B, k); shape (B, 1, D)."""
    return scores.scatter(1, chosen, 0.0)[:, None] @ tokens
