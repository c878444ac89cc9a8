"""tome: the most similar tokens become one, some in every block (Bolya et al., ICLR 2023, arXiv:2210.09461)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.pruning.pruner import Pruner, PruningState, nearest
from tokbench.pruning.vit import Attended, Sizes


class ToMe(Pruner):
    """Every block merges as many: each token of even place with the most similar one of odd place, by their keys' mean
    over heads, the most similar pairs first. Sizes are counted and attention is proportional to them.

    A block merges at most half of its tokens.
    """

    title, source = "ToMe", "arXiv:2210.09461"
    proportional = True

    def plan(self, sizes: Sizes, keep: float) -> list[int]:
        """With the same number merged in each block, as near to the FLOPs of `keep` as there is one."""
        return nearest(sizes, keep, [_every_block(sizes, merged) for merged in range(sizes.patches // 2 + 1)])

    def reduce(self, tokens: Tensor, seen: Attended, count: int, run: PruningState) -> Tensor:
        patches, sizes = tokens[:, run.prefix :], run.sizes_of(tokens)
        count = max(count, -(-patches.shape[1] // 2))  # a plan in whole multiples can ask for more
        merged, of = merge(patches, seen.key.mean(1)[:, run.prefix :], sizes[:, run.prefix :], count)
        run.sizes = torch.cat([sizes[:, : run.prefix], of], 1)
        return torch.cat([tokens[:, : run.prefix], merged], 1)


def _every_block(sizes: Sizes, merged: int) -> list[int]:
    left, kept = sizes.patches, []
    for _ in range(sizes.depth):
        left -= min(merged, left // 2)
        kept.append(left)
    return kept


def merge(tokens: Tensor, keys: Tensor, sizes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Tokens (B, n, D) of sizes (B, n) to `count` ones and their sizes, as means weighted by size.

    keys (B, n, d) say what is similar. The n - count pairs are those of highest cosine between a token of even place
    and its best partner of odd place; several may have the same partner.
    """
    n = tokens.shape[1]
    unit = F.normalize(keys, dim=-1)
    similar, partner = (unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)).max(2)
    order = similar.argsort(dim=1, descending=True, stable=True)
    gone, stay = order[:, : n - count], order[:, n - count :].sort(1).values
    partner = partner.gather(1, gone)
    weighted = tokens * sizes[..., None]
    even, odd = weighted[:, ::2], weighted[:, 1::2]
    odd = odd.scatter_add(1, _wide(partner, odd), even.gather(1, _wide(gone, even)))
    even_sizes, odd_sizes = sizes[:, ::2], sizes[:, 1::2]
    odd_sizes = odd_sizes.scatter_add(1, partner, even_sizes.gather(1, gone))
    made = torch.cat([even.gather(1, _wide(stay, even)), odd], 1)
    of = torch.cat([even_sizes.gather(1, stay), odd_sizes], 1)
    return made / of[..., None], of


def _wide(places: Tensor, like: Tensor) -> Tensor:
    return places[..., None].expand(-1, -1, like.shape[2])
