"""Transformers over sparse sets of features with coordinates: rotary positions in several dimensions, and packing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.vit import ADDED, initialise, mlp

BASE = 100.0
"""Ratio of the highest to the lowest frequency of an axis with many frequencies; it suits small coordinates."""


def rotary_angles(coordinates: Tensor, values: int) -> Tensor:
    """Return the angles (..., values / 2) by which pairs of values are rotated at coordinates (..., axes).

    Rotary positions (RoFormer, arXiv:2104.09864) in several dimensions: each axis has an equal share of the pairs.
    Raises ValueError if the pairs cannot be divided equally.
    """
    axes = coordinates.shape[-1]
    if values % (2 * axes):
        raise ValueError(f"{values} values per head are not a multiple of {2 * axes}, two for each of {axes} axes")
    count = values // (2 * axes)
    frequencies = BASE ** (-torch.arange(count, device=coordinates.device) / count)
    return (coordinates.float()[..., None] * frequencies).flatten(-2)


def rotate(values: Tensor, angles: Tensor) -> Tensor:
    """Rotate the pairs (i, i + D / 2) of values (..., D) by angles (..., D / 2)."""
    first, second = values.chunk(2, dim=-1)
    cosine, sine = angles.cos(), angles.sin()
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1).to(values.dtype)


class RotaryAttention(nn.Module):
    """Multi-head self-attention of x (B, N, D) with rotary positions and normalised queries and keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm_query, self.norm_key = nn.RMSNorm(width // heads), nn.RMSNorm(width // heads)

    def forward(self, x: Tensor, angles: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return (B, N, D). angles: (B, N, D / heads / 2). mask: bool (B, N), the positions that are attended to."""
        query, key, value = self.query_key_value(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        turned = angles[:, None]
        query, key = (rotate(norm(part), turned) for norm, part in ((self.norm_query, query), (self.norm_key, key)))
        allowed = None if mask is None else mask[:, None, None]
        found = F.scaled_dot_product_attention(query.to(value.dtype), key.to(value.dtype), value, attn_mask=allowed)
        return self.out(found.transpose(1, 2).flatten(2))


class RotaryBlock(nn.Module):
    """A pre-norm transformer block with rotary positions."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm, self.attention = nn.RMSNorm(width), RotaryAttention(width, heads)
        self.norm_mlp, self.mlp = nn.RMSNorm(width), mlp(width)

    def forward(self, x: Tensor, angles: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norm(x), angles, mask)
        return x + self.mlp(self.norm_mlp(x))


class RotaryTransformer(nn.Module):
    """A transformer of `depth` blocks with a final norm, over features (B, N, D) at coordinates (B, N, axes)."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.values = width // heads
        self.blocks = nn.ModuleList(RotaryBlock(width, heads) for _ in range(depth))
        self.norm = nn.RMSNorm(width)
        self.apply(initialise)
        with torch.no_grad():
            for name, weight in self.named_parameters():  # last layers of the residual branches
                if name.endswith(("attention.out.weight", "mlp.2.weight")):
                    weight.mul_(ADDED)

    def forward(self, x: Tensor, coordinates: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return (B, N, D). mask: bool (B, N), the positions that exist; the others get meaningless features."""
        angles = rotary_angles(coordinates, self.values)
        for block in self.blocks:
            x = block(x, angles, mask)
        return self.norm(x)


def pack(keep: Tensor) -> tuple[Tensor, Tensor]:
    """Return the places of the features to keep, int64 (B, M), and which of them exist, bool (B, M).

    keep: bool (B, N). M is the largest number of features that an item keeps, at least 1. Places that do not exist are
    those of features that are left out.
    """
    count = max(1, int(keep.sum(1).max()))
    places = keep.int().argsort(dim=1, descending=True, stable=True)[:, :count]
    return places, keep.gather(1, places)


def unpack(values: Tensor, places: Tensor, exists: Tensor, count: int) -> Tensor:
    """Return values (B, M, D) at their places in (B, count, D), and 0 elsewhere: the inverse of `pack`."""
    full = values.new_zeros(len(values), count, values.shape[2])
    return full.scatter(1, places[..., None].expand_as(values), values * exists[..., None])
