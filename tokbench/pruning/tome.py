"""ToMe: merges the most similar tokens in every block (Bolya et al., ICLR 2023, arXiv:2210.09461)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.pruning.pruner import Pruner, PruningState, nearest
from tokbench.pruning.vit import Attended, Sizes


class ToMe(Pruner):
    """Every block merges the same number of tokens, at most half of them.

    Tokens at even positions are merged into the most similar token at an odd position, most similar pairs first;
    similarity is the cosine of the keys, averaged over heads. Attention is proportional to token sizes.
    """

    title, source = "ToMe", "arXiv:2210.09461"
    proportional = True

    def plan(self, sizes: Sizes, keep: float) -> list[int]:
        """Return the plan with equal merges per block whose FLOPs are closest to the budget of `keep`."""
        return nearest(sizes, keep, [_every_block(sizes, merged) for merged in range(sizes.patches // 2 + 1)])

    def reduce(self, tokens: Tensor, seen: Attended, count: int, run: PruningState) -> Tensor:
        patches, sizes = tokens[:, run.prefix :], run.sizes_of(tokens)
        count = max(count, -(-patches.shape[1] // 2))  # a rounded plan can require more merges
        merged, of = merge(patches, seen.key.mean(1)[:, run.prefix :], sizes[:, run.prefix :], count)
        run.sizes = torch.cat([sizes[:, : run.prefix], of], 1)
        return torch.cat([tokens[:, : run.prefix], merged], 1)


def _every_block(sizes: Sizes, merged: int) -> list[int]:
    """Return the patch tokens left by each block if every block merges `merged`, at most half of its tokens."""
    left, kept = sizes.patches, []
    for _ in range(sizes.depth):
        left -= min(merged, left // 2)
        kept.append(left)
    return kept


def merge(tokens: Tensor, keys: Tensor, sizes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Merge tokens (B, n, D) of sizes (B, n) into `count` size-weighted means; return them and their sizes.

    Similarity is the cosine of keys (B, n, d). The n - count merged pairs are those of highest similarity between a
    token at an even position and its best partner at an odd position; several may have the same partner.
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
    sums = torch.cat([even.gather(1, _wide(stay, even)), odd], 1)
    of = torch.cat([even_sizes.gather(1, stay), odd_sizes], 1)
    return sums / of[..., None], of


def _wide(places: Tensor, like: Tensor) -> Tensor:
    return places[..., None].expand(-1, -1, like.shape[2])
