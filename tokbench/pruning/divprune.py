"""DivPrune: keeps tokens with maximal minimum distance (Alvar et al., CVPR 2025, arXiv:2503.02175)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.pruning.pruner import Pruner, PruningState, nearest, pick, stages
from tokbench.pruning.vit import Attended, Sizes


class DivPrune(Pruner):
    """Keeps the most diverse tokens; the distance is 1 minus the cosine of tokens.

    The authors prune once, before a language model. Here tokens are pruned once, in the first stage of a vision
    transformer, to the number of tokens whose FLOPs match `keep`.
    """

    title, source = "DivPrune", "arXiv:2503.02175, here in a vision transformer"

    def plan(self, sizes: Sizes, keep: float) -> list[int]:
        return nearest(sizes, keep, [_once(sizes, left) for left in range(1, sizes.patches + 1)])

    def reduce(self, tokens: Tensor, seen: Attended, count: int, run: PruningState) -> Tensor:
        unit = F.normalize(tokens[:, run.prefix :], dim=-1)
        chosen = farthest_points(1 - unit @ unit.transpose(1, 2), count)
        return pick(tokens, chosen.sort(1).values, run.prefix)


def _once(sizes: Sizes, left: int) -> list[int]:
    first = stages(sizes.depth)[0]
    return [sizes.patches if block < first else left for block in range(sizes.depth)]


def farthest_points(distances: Tensor, count: int) -> Tensor:
    """Choose `count` of n points that are far from each other by distances (B, n, n); return indices (B, count).

    The first point is the one farthest from its nearest neighbour; each further point is the one farthest from all
    chosen points. For a metric, the minimum distance is at least half the optimum (Gonzalez 1985). Ties go to the lower
    index. Cost: O(count n) with a running minimum.
    """
    n = distances.shape[1]
    own = torch.eye(n, dtype=torch.bool, device=distances.device)
    distance = distances.masked_fill(own, torch.inf).min(2).values
    if n == 1:
        distance = distances.new_zeros(len(distances), 1)
    chosen = []
    for step in range(count):
        new = distance.argmax(1, keepdim=True)
        chosen.append(new)
        row = distances.gather(1, new[..., None].expand(-1, -1, n))[:, 0]
        distance = (row if step == 0 else torch.minimum(distance, row)).scatter(1, new, -torch.inf)
    return torch.cat(chosen, 1)
