"""Who may look at whom: attention masks (N, N), True where the row's token sees the column's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def causal(count: int) -> Tensor:
    """Every token sees itself and those before it."""
    return torch.ones(count, count, dtype=torch.bool).tril()


def causal_queries(patches: int, queries: int) -> Tensor:
    """Patches first, then queries: patches see patches; queries see all patches and, in order, one another.

    Patches that do not see queries keep what the first queries say independent of the later ones (FlexTok's and D-AR's
    encoders).
    """
    mask = torch.zeros(patches + queries, patches + queries, dtype=torch.bool)
    mask[:, :patches] = True
    mask[patches:, patches:] = causal(queries)
    return mask


def scale_causal(sides: Sequence[int]) -> Tensor:
    """Grids of `sides` x `sides` tokens in a row, coarse to fine: a token sees its own and all coarser grids (HieraTok,
    arXiv:2509.23736)."""
    scale = torch.cat([torch.full((side * side,), rank) for rank, side in enumerate(sides)])
    return scale[:, None] >= scale[None, :]
