"""Attention between the channels of an image's features, of which each channel attends to a few only (DRSformer)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def top_k_softmax(scores: Tensor, count: int) -> Tensor:
    """Return the softmax over the `count` largest scores (..., C, C) of each row; the other entries are 0."""
    if count >= scores.shape[-1]:
        return scores.softmax(-1)
    kept = scores.topk(count, dim=-1).indices
    hidden = torch.full_like(scores, -torch.inf)
    return hidden.scatter(-1, kept, scores.gather(-1, kept)).softmax(-1)


class TopKChannelAttention(nn.Module):
    """Transposed attention with a learned mix of sparsities (arXiv:2303.11950); features (B, C, H, W) to the same.

    The scores of a head are the cosines between its channels over all pixels, times a learned temperature. For each
    share in `shares`, every channel attends to this share of the channels with the highest scores; the maps are added
    with learned weights. One share of 1 is dense attention. The maps are added before they are multiplied by the
    values, which gives the same sum as one product for each map.
    """

    def __init__(self, width: int, heads: int, shares: Sequence[float] = (1 / 2, 2 / 3, 3 / 4, 4 / 5)) -> None:
        """Raises ValueError if the width is not a multiple of the heads, or if a share is not in (0, 1]."""
        super().__init__()
        if width % heads or not shares or not all(0 < share <= 1 for share in shares):
            raise ValueError(f"width {width}, heads {heads}, shares {tuple(shares)}: heads must divide the width, and "
                             "shares must be in (0, 1]")  # fmt: skip
        self.heads, self.counts = heads, [max(1, int(width // heads * share)) for share in shares]
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.mix = nn.Parameter(torch.full((len(shares),), 0.8 / len(shares)))  # the authors': 0.2 for each of four
        self.project = nn.Conv2d(width, 3 * width, 1, bias=False)
        self.local = nn.Conv2d(3 * width, 3 * width, 3, padding=1, groups=3 * width, bias=False)
        self.out = nn.Conv2d(width, width, 1, bias=False)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Map queries, keys and values (B, heads, C, N) of N pixels to (B, heads, C, N)."""
        scores = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1) * self.temperature
        maps = [weight * top_k_softmax(scores, count) for weight, count in zip(self.mix, self.counts, strict=True)]
        return torch.stack(maps).sum(0) @ value

    def forward(self, x: Tensor) -> Tensor:
        parts = self.local(self.project(x)).flatten(2).unflatten(1, (3, self.heads, -1))
        query, key, value = parts.unbind(1)
        return self.out(self.attend(query, key, value).flatten(1, 2).unflatten(2, x.shape[2:]))
