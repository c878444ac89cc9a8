"""Zero-TPrune: keeps the tokens that important tokens attend to, without training (Wang et al., arXiv:2305.17328)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.pruning.pruner import Pruner, PruningState, best, pick
from tokbench.pruning.vit import Attended

SIMILAR = 1 / 3
"""Share of the dropped tokens that are dropped because a similar token remains."""
SPREAD = (0.01, 0.7)
"""A head is used if the variance of its scores lies between these bounds."""


class ZeroTPrune(Pruner):
    """Two steps per stage: similar tokens are dropped first, then tokens with a low weighted page rank.

    One voting round ranks the tokens. From the lower half, the tokens whose keys are most similar to a token of the
    upper half are dropped. Among the remaining tokens, a weighted page rank on the attention map selects.

    heads: whether heads whose scores vary too little or too much are ignored. page_rank: whether scores are iterated
    (otherwise one voting round). similar: share of the dropped tokens that are dropped for similarity.

    The paper does not state how much is pruned in which block. The stages, the share of one third, and the iterations
    by depth (within the paper's ranges) are choices of this implementation. Scores sum to 1 over N tokens, so their
    variance is never near the paper's bounds; the variance of N times the scores is used instead, and all heads are
    used if none passes.
    """

    title, source = "Zero-TPrune", "arXiv:2305.17328, places and rates ours"
    needs_cls = True

    def __init__(self, page_rank: bool = True, heads: bool = True, similar: float = SIMILAR) -> None:
        self.page_rank, self.heads, self.similar = page_rank, heads, similar

    def reduce(self, tokens: Tensor, seen: Attended, count: int, run: PruningState) -> Tensor:
        prefix, maps = run.prefix, seen.map()
        n = tokens.shape[1] - prefix
        similar = min(int((n - count) * self.similar), n // 2)
        left = torch.arange(n, device=tokens.device).expand(len(tokens), -1)
        if similar:
            vote = importance(maps, 1, prefix, self.heads)
            left = drop_similar(seen.key.transpose(1, 2).flatten(2)[:, prefix:], vote, similar)
            first = torch.arange(prefix, device=tokens.device).expand(len(tokens), -1)
            maps = restrict(maps, torch.cat([first, left + prefix], 1))
        place = len(run.counts) / run.vit.sizes.depth
        scores = importance(maps, iterations(place) if self.page_rank else 1, prefix, self.heads)
        return pick(tokens, left.gather(1, best(scores, count)), prefix)


def iterations(place: float) -> int:
    """Return the page rank iterations at a relative depth `place` in [0, 1).

    The paper's ranges are 30 to 50 in shallow blocks, 5 to 10 in the middle and 1 in deep blocks; the values within
    them are choices of this implementation.
    """
    return 40 if place < 1 / 3 else 8 if place < 2 / 3 else 1


def importance(maps: Tensor, rounds: int, prefix: int, heads: bool) -> Tensor:
    """Return scores of the tokens after the prefix, (B, n), from maps (B, H, N, N) whose rows sum to 1."""
    scores = page_rank(maps, rounds)
    used = informative_heads(scores) if heads else torch.ones_like(scores[..., 0])
    return ((used[..., None] * scores.square()).sum(1) / used.sum(1)[:, None]).sqrt()[:, prefix:]


def page_rank(maps: Tensor, rounds: int) -> Tensor:
    """Return scores (B, H, N) that sum to 1, from maps (B, H, N, N).

    In each of `rounds` iterations, every token distributes its score over the tokens it attends to. Initially, CLS has
    sqrt(N) times the score of the other tokens.
    """
    count = maps.shape[-1]
    start = maps.new_ones(count)
    start[0] = count**0.5
    scores = (start / start.sum()).expand(maps.shape[:3])
    for _ in range(rounds):
        scores = (scores[..., None, :] @ maps)[..., 0, :]
    return scores


def informative_heads(scores: Tensor) -> Tensor:
    """Return 1 for each head whose scores (B, H, N) have a suitable variance, else 0, (B, H); all ones if none has."""
    variance = (scores * scores.shape[-1]).var(-1, correction=0)
    passes = ((variance >= SPREAD[0]) & (variance <= SPREAD[1])).to(scores.dtype)
    return torch.where(passes.sum(1, keepdim=True) > 0, passes, torch.ones_like(passes))


def drop_similar(keys: Tensor, vote: Tensor, similar: int) -> Tensor:
    """Return the sorted indices (B, n - similar) that remain after dropping `similar` tokens.

    Dropped are the tokens of the lower half of the vote (B, n) whose keys (B, n, d) are most similar to one in the
    upper half.
    """
    n = vote.shape[1]
    order = vote.argsort(dim=1, descending=True, stable=True)
    upper, lower = order[:, : n - n // 2], order[:, n - n // 2 :]
    unit = F.normalize(keys, dim=-1)
    wide = unit.shape[2]
    lower_keys, upper_keys = (unit.gather(1, part[..., None].expand(-1, -1, wide)) for part in (lower, upper))
    similarity = (lower_keys @ upper_keys.transpose(1, 2)).amax(2)
    stay = lower.gather(1, similarity.argsort(dim=1, stable=True)[:, : n // 2 - similar])
    return torch.cat([upper, stay], 1).sort(1).values


def restrict(maps: Tensor, places: Tensor) -> Tensor:
    """Return the maps (B, H, N, N) restricted to the tokens at places (B, k), with rows normalized to sum 1."""
    rows = maps.gather(2, places[:, None, :, None].expand(-1, maps.shape[1], -1, maps.shape[3]))
    both = rows.gather(3, places[:, None, None].expand(-1, maps.shape[1], places.shape[1], -1))
    return both / both.sum(-1, keepdim=True)
