"""Attention masks, bool (N, N): True where the token of the row attends to the token of the column."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def causal(count: int) -> Tensor:
    """Return the causal mask (count, count): every token attends to itself and to earlier tokens."""
    return torch.ones(count, count, dtype=torch.bool).tril()


def causal_queries(patches: int, queries: int) -> Tensor:
    """Return the mask over patches and then queries of FlexTok's and D-AR's encoders.

    Patches attend to patches only; queries attend to all patches and causally to queries. Since no patch attends to a
    query, the features of a query do not depend on later queries.
    """
    mask = torch.zeros(patches + queries, patches + queries, dtype=torch.bool)
    mask[:, :patches] = True
    mask[patches:, patches:] = causal(queries)
    return mask


def patches_then_queries(patches: int, queries: int) -> Tensor:
    """Return the mask over patches and then queries in which queries attend to everything, and patches to patches.

    It differs from `causal_queries` only in that a query also attends to later queries.
    """
    mask = torch.zeros(patches + queries, patches + queries, dtype=torch.bool)
    mask[:, :patches] = True
    mask[patches:, patches:] = True
    return mask


def scale_causal(sides: Sequence[int]) -> Tensor:
    """Return the scale-causal mask (HieraTok, arXiv:2509.23736) over concatenated square grids, coarse to fine.

    sides: the side of each grid in tokens. A token attends to its own grid and to all coarser ones.
    """
    scale = torch.cat([torch.full((side * side,), rank) for rank, side in enumerate(sides)])
    return scale[:, None] >= scale[None, :]
