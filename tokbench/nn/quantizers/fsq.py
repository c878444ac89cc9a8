"""Finite scalar quantization: every value is bounded and rounded; the codebook is the grid of all combinations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.nn.quantizers.quantizer import Quantized, Quantizer, mixed_radix, straight_through, usage

MARGIN = 1e-3  # relative excess of the bound over the outermost level, which tanh would otherwise never reach


class FSQ(Quantizer):
    """Rounds latent i to one of `levels[i]` values (Mentzer et al., arXiv:2309.15505); the loss is 0.

    D = len(levels), G = 1, K = prod(levels). Vectors lie in [-1, 1]: value j of L is (j - L // 2) / (L // 2), so with
    even L the value 1 does not occur. The first latent is the least significant digit of the index. Raises ValueError
    for fewer than 3 levels, where the offset for even L would make the values almost one-sided; use `LFQ` for 2 levels.
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
            raise ValueError(f"levels must be 3 or more each, not {list(levels)}")
        self.levels, self.dim, self.codebook_size = tuple(levels), len(levels), math.prod(levels)
        places, digits = mixed_radix(levels)
        steps = torch.tensor(levels) // 2
        # Rounding gives an odd number of values around 0; for an even number the bounds are half a step lower.
        offset = torch.tensor([0.5 * (level % 2 == 0) for level in levels])
        reach = (torch.tensor(levels) - 1) * (1 + MARGIN) / 2
        # All buffers follow from the levels, so they are not stored in the state dict.
        for name, values in {
            "places": places,
            "steps": steps.float(),
            "reach": reach,
            "offset": offset,
            "shift": torch.atanh(offset / reach),  # maps a latent of 0 to the value 0 for even levels too
            "grid": (digits - steps) / steps.float(),
        }.items():
            self.register_buffer(name, values, persistent=False)

    def forward(self, latents: Tensor) -> Quantized:
        """Quantize (B, N, D), with the statistics `perplexity` and `used` (share of the entries) of this batch."""
        bounded = self.bounded(latents)
        rounded = bounded.detach().round()
        indices = ((rounded + self.steps).to(torch.int64) * self.places).sum(-1, keepdim=True)
        vectors = straight_through(bounded, rounded) / self.steps
        return Quantized(vectors, indices, vectors.new_zeros(()), usage(indices, self.codebook_size))

    def unquantized(self, latents: Tensor) -> Tensor:
        return self.bounded(latents) / self.steps

    def bounded(self, latents: Tensor) -> Tensor:
        """Bound latents (B, N, D) by tanh, in units of levels, to just beyond the outermost levels.

        These are +-(L - 1) / 2 for an odd number L of levels, and -L / 2 and L / 2 - 1 for an even one.
        """
        return torch.tanh(latents.float() + self.shift) * self.reach - self.offset

    def lookup(self, indices: Tensor) -> Tensor:
        """Map int64 (B, N, 1) to vectors (B, N, D). Raises IndexError outside the grid."""
        return F.embedding(indices[..., 0], self.grid)

    def table(self) -> Tensor:
        """Return the grid (1, K, D)."""
        return self.grid[None]

    def anchors(self, latents: Tensor) -> Tensor:
        """Return the bounded values before rounding, (B, N, 1, D), of latents (B, N, D)."""
        return (self.bounded(latents) / self.steps)[:, :, None]
