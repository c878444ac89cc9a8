"""Token Transforming: reduced tokens are overlapping means of all tokens, Y = W X (arXiv:2506.05709).

Derived from the abstract, because neither formulas nor code were published at the time of writing.
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
    """At each stage the tokens that CLS attends to most are anchors; every other token is distributed over them.

    The weights are a softmax of cosines with temperature `tau`. Attention is proportional to token sizes. kind: "merge"
    assigns each token only to its nearest anchor, "prune" to none.
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
    """Return W (B, m, n), whose rows sum to 1, and new sizes (B, m).

    The inputs are tokens (B, n, D), sizes (B, n) and anchors (B, m).

    Unless tokens are pruned, the sum of sizes and the size-weighted mean of tokens are preserved.
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
