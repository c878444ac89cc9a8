"""zero_tprune: tokens that important tokens look at stay, without training (Wang et al., arXiv:2305.17328)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.pruning.pruner import Pruner, PruningState, best, pick
from tokbench.pruning.vit import Attended

SIMILAR = 1 / 3
"""Share of the dropped tokens that go since another one is like them."""
SPREAD = (0.01, 0.7)
"""A head has a say where the variance of its scores lies between these."""


class ZeroTPrune(Pruner):
    """At each stage: one vote ranks the tokens; of its worse half those go that are most like a token of the better
    half, by their keys; among the survivors a weighted page rank on their attention decides who stays.

    heads: whether heads whose scores vary too little or too much are left out; page_rank: whether scores go round until
    they settle (else one vote); similar: share of the dropped tokens that go for likeness. The paper does not say where
    it prunes how much; these stages, a third for likeness, and iterations by depth within the paper's ranges are ours.
    Scores sum to 1 over N tokens, so their variance is never near the paper's bounds: it is taken of N times the
    scores, and where no head passes all have a say.
    """

    title, source = "Zero-TPrune", "arXiv:2305.17328, places and rates ours"
    needs_cls = True

    def __init__(self, page_rank: bool = True, heads: bool = True, similar: float = SIMILAR) -> None:
        self.page_rank, self.heads, self.similar = page_rank, heads, similar

    def reduce(self, tokens: Tensor, seen: Attended, count: int, run: PruningState) -> Tensor:
        prefix, maps = run.prefix, seen.map()
        n = tokens.shape[1] - prefix
        alike = min(int((n - count) * self.similar), n // 2)
        left = torch.arange(n, device=tokens.device).expand(len(tokens), -1)
        if alike:
            vote = importance(maps, 1, prefix, self.heads)
            left = without_alike(seen.key.transpose(1, 2).flatten(2)[:, prefix:], vote, alike)
            first = torch.arange(prefix, device=tokens.device).expand(len(tokens), -1)
            maps = among(maps, torch.cat([first, left + prefix], 1))
        place = len(run.counts) / run.vit.sizes.depth
        scores = importance(maps, iterations(place) if self.page_rank else 1, prefix, self.heads)
        return pick(tokens, left.gather(1, best(scores, count)), prefix)


def iterations(place: float) -> int:
    """Rounds of the page rank at a place in the network, from 0 to 1: 30 to 50 in shallow blocks, 5 to 10 in the
    middle, 1 in deep ones (the paper's ranges; the values in them are ours)."""
    return 40 if place < 1 / 3 else 8 if place < 2 / 3 else 1


def importance(maps: Tensor, rounds: int, prefix: int, heads: bool) -> Tensor:
    """Scores of the tokens behind the prefix, (B, n), from maps (B, H, N, N) whose rows sum to 1."""
    scores = page_rank(maps, rounds)
    say = heads_with_a_say(scores) if heads else torch.ones_like(scores[..., 0])
    return ((say[..., None] * scores.square()).sum(1) / say.sum(1)[:, None]).sqrt()[:, prefix:]


def page_rank(maps: Tensor, rounds: int) -> Tensor:
    """(B, H, N, N) to (B, H, N) of sum 1: each token hands its score on to those that it looks at, `rounds` times. At
    first CLS has sqrt(N) times the score of the others."""
    count = maps.shape[-1]
    start = maps.new_ones(count)
    start[0] = count**0.5
    scores = (start / start.sum()).expand(maps.shape[:3])
    for _ in range(rounds):
        scores = (scores[..., None, :] @ maps)[..., 0, :]
    return scores


def heads_with_a_say(scores: Tensor) -> Tensor:
    """(B, H, N) to 1 or 0 for each head, (B, H); all ones where all would be 0."""
    variance = (scores * scores.shape[-1]).var(-1, correction=0)
    passes = ((variance >= SPREAD[0]) & (variance <= SPREAD[1])).to(scores.dtype)
    return torch.where(passes.sum(1, keepdim=True) > 0, passes, torch.ones_like(passes))


def without_alike(keys: Tensor, vote: Tensor, alike: int) -> Tensor:
    """Places (B, n - alike), rising, after the `alike` tokens of the lower half of the vote (B, n) went whose keys
    (B, n, d) are most like one in the upper half."""
    n = vote.shape[1]
    order = vote.argsort(dim=1, descending=True, stable=True)
    upper, lower = order[:, : n - n // 2], order[:, n - n // 2 :]
    unit = F.normalize(keys, dim=-1)
    wide = unit.shape[2]
    ours, theirs = (unit.gather(1, part[..., None].expand(-1, -1, wide)) for part in (lower, upper))
    likeness = (ours @ theirs.transpose(1, 2)).amax(2)
    stay = lower.gather(1, likeness.argsort(dim=1, stable=True)[:, : n // 2 - alike])
    return torch.cat([upper, stay], 1).sort(1).values


def among(maps: Tensor, places: Tensor) -> Tensor:
    """Maps (B, H, N, N) among the tokens at places (B, k), their rows brought to sum 1 again."""
    rows = maps.gather(2, places[:, None, :, None].expand(-1, maps.shape[1], -1, maps.shape[3]))
    both = rows.gather(3, places[:, None, None].expand(-1, maps.shape[1], places.shape[1], -1))
    return both / both.sum(-1, keepdim=True)
