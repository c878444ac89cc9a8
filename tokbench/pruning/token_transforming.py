"""token_transforming: few tokens as overlapping means of many, Y = W X (arXiv:2506.05709).

Re-derived from the abstract: neither formula nor code was published when this was written.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.pruning.pruner import Pruner, PruningState, best
from tokbench.pruning.vit import Attended

Kind = Literal["many-to-many", "merge", "prune"]


class TokenTransforming(Pruner):
    """At each stage the tokens that CLS looks at most are anchors, and every other token spreads itself over them by a
    softmax of cosines at temperature `tau`. Sizes are counted and attention is proportional to them.

    kind: "merge" gives each token to its nearest anchor alone, "prune" to none: the same W with other rows.
    """

    title, source = "Token Transforming (reconstruction)", "re-derived from the abstract of arXiv:2506.05709"
    needs_cls = True
    proportional = True

    def __init__(self, tau: float = 0.05, kind: Kind = "many-to-many") -> None:
        self.tau, self.kind = tau, kind

    def reduce(self, tokens: Tensor, seen: Attended, count: int, run: PruningState) -> Tensor:
        patches, sizes = tokens[:, run.prefix :], run.sizes_of(tokens)
        anchors = best(seen.cls()[:, run.prefix :], count)
        matrix, of = transform(patches, anchors, sizes[:, run.prefix :], self.tau, self.kind)
        run.sizes = torch.cat([sizes[:, : run.prefix], of], 1)
        return torch.cat([tokens[:, : run.prefix], matrix @ patches], 1)


def transform(tokens: Tensor, anchors: Tensor, sizes: Tensor, tau: float, kind: Kind) -> tuple[Tensor, Tensor]:
    """W (B, m, n), rows of sum 1, for tokens (B, n, D) of sizes (B, n) and anchors (B, m); and the new sizes (B, m).

    New sizes sum to the old ones unless tokens are pruned, and W keeps the mean weighted by size.
    """
    unit = F.normalize(tokens, dim=-1)
    chosen = unit.gather(1, anchors[..., None].expand(-1, -1, unit.shape[2]))
    near = unit @ chosen.transpose(1, 2)
    if kind == "many-to-many":
        shares = (near / tau).softmax(2)
    elif kind == "merge":
        shares = F.one_hot(near.argmax(2), anchors.shape[1]).to(tokens.dtype)
    else:
        shares = torch.zeros_like(near)
    own = F.one_hot(anchors, tokens.shape[1]).to(tokens.dtype)
    is_anchor = own.sum(1)[..., None]
    shares = shares * (1 - is_anchor) + own.transpose(1, 2)
    mass = shares * sizes[..., None]
    of = mass.sum(1)
    return (mass / of[:, None]).transpose(1, 2), of
