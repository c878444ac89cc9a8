"""divprune: tokens far from one another stay, max-min diversity (Alvar et al., CVPR 2025, arXiv:2503.02175)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.pruning.pruner import Pruner, PruningState, nearest, pick, stages
from tokbench.pruning.vit import Attended, Sizes


class DivPrune(Pruner):
    """The authors' method prunes once, before a language model; here once, in the first stage of a vision transformer,
    to as many tokens as give the FLOPs of `keep`. Distance: 1 less the cosine of tokens."""

    title, source = "DivPrune", "arXiv:2503.02175, here in a vision transformer"

    def plan(self, sizes: Sizes, keep: float) -> list[int]:
        return nearest(sizes, keep, [_once(sizes, left) for left in range(1, sizes.patches + 1)])

    def reduce(self, tokens: Tensor, seen: Attended, count: int, run: PruningState) -> Tensor:
        unit = F.normalize(tokens[:, run.prefix :], dim=-1)
        chosen = spread(1 - unit @ unit.transpose(1, 2), count)
        return pick(tokens, chosen.sort(1).values, run.prefix)


def _once(sizes: Sizes, left: int) -> list[int]:
    first = stages(sizes.depth)[0]
    return [sizes.patches if block < first else left for block in range(sizes.depth)]


def spread(distances: Tensor, count: int) -> Tensor:
    """`count` of n points, far from one another by distances (B, n, n), in the order of choice, (B, count).

    First the point that is farthest from its nearest other one, then always the one farthest from all chosen ones: of
    a metric, at least half of the best least distance there is (Gonzalez 1985). Of equals the first. A running minimum:
    O(count n).
    """
    n = distances.shape[1]
    own = torch.eye(n, dtype=torch.bool, device=distances.device)
    away = distances.masked_fill(own, torch.inf).min(2).values
    if n == 1:
        away = distances.new_zeros(len(distances), 1)
    chosen = []
    for step in range(count):
        new = away.argmax(1, keepdim=True)
        chosen.append(new)
        row = distances.gather(1, new[..., None].expand(-1, -1, n))[:, 0]
        away = (row if step == 0 else torch.minimum(away, row)).scatter(1, new, -torch.inf)
    return torch.cat(chosen, 1)
