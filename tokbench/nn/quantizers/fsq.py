"""Finite scalar quantization: every value is bounded and rounded; the codebook is the grid of all results."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.nn.quantizers.quantizer import Quantized, Quantizer, mixed_radix, straight_through, usage

MARGIN = 1e-3  # by which the bound exceeds the outermost level, which tanh would else never reach


class FSQ(Quantizer):
    """`levels[i]` values for latent i (Mentzer et al., 2309.15505); D = len(levels), G = 1, K = prod(levels); no loss.

    Vectors lie in [-1, 1]: value j of L is (j - L // 2) / (L // 2), so an even L lacks the 1. The first latent is the
    index's least significant digit. Raises ValueError for fewer than 3 levels, which the offset of even L would make
    all but one-sided; two levels are what `LFQ` is for.
    """

    places: Tensor
    steps: Tensor
    reach: Tensor
    offset: Tensor
    shift: Tensor
    grid: Tensor
    groups = 1

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        if not levels or min(levels) < 3:
            raise ValueError(f"levels must be 3 or more each, they are {list(levels)}")
        self.levels, self.dim, self.codebook_size = tuple(levels), len(levels), math.prod(levels)
        places, digits = mixed_radix(levels)
        steps = torch.tensor(levels) // 2
        # Rounding gives an odd number of values around 0: for an even one the bounds lie half a step lower.
        offset = torch.tensor([0.5 * (level % 2 == 0) for level in levels])
        reach = (torch.tensor(levels) - 1) * (1 + MARGIN) / 2
        # All of it follows from the levels: nothing for a state to hold.
        for name, values in {
            "places": places,
            "steps": steps.float(),
            "reach": reach,
            "offset": offset,
            "shift": torch.atanh(offset / reach),  # a latent of 0 is a value of 0 for even levels too
            "grid": (digits - steps) / steps.float(),
        }.items():
            self.register_buffer(name, values, persistent=False)

    def forward(self, latents: Tensor) -> Quantized:
        """(B, N, D); statistics `perplexity` and `used` (share of the entries) of this batch."""
        bounded = self.bounded(latents)
        rounded = bounded.detach().round()
        indices = ((rounded + self.steps).to(torch.int64) * self.places).sum(-1, keepdim=True)
        vectors = straight_through(bounded, rounded) / self.steps
        return Quantized(vectors, indices, vectors.new_zeros(()), usage(indices, self.codebook_size))

    def bounded(self, latents: Tensor) -> Tensor:
        """(B, N, D) in units of levels, each value within half a step and a margin of its outermost levels."""
        return torch.tanh(latents.float() + self.shift) * self.reach - self.offset

    def lookup(self, indices: Tensor) -> Tensor:
        """int64 (B, N, 1) to vectors (B, N, D). Raises IndexError outside the grid."""
        return F.embedding(indices[..., 0], self.grid)

    def table(self) -> Tensor:
        """(1, K, D): the grid."""
        return self.grid[None]

    def anchors(self, latents: Tensor) -> Tensor:
        """(B, N, D) to (B, N, 1, D): the bounded values, before rounding."""
        return (self.bounded(latents) / self.steps)[:, :, None]
