"""SimVQ: a frozen random codebook under one learned linear map, so that every step moves every entry."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.quantizers.quantizer import (
    GRADIENTS,
    Gradient,
    Quantized,
    Quantizer,
    exact,
    matching_loss,
    nearest,
    usage,
)


class SimVQ(Quantizer):
    """The nearest of K = `codebook_size` entries W c_k; c_k are drawn once, W is learned (2411.02038); G = 1.

    c_k are `dim` normal values of standard deviation dim^-1/2; the codebook loss has weight 1, `commitment` that of the
    latents' pull, as in ILLUME+ (2504.01934). Raises ValueError for a `gradient` that does not exist.
    """

    base: Tensor
    groups = 1

    def __init__(
        self, codebook_size: int, dim: int, *, commitment: float = 0.25, gradient: Gradient = "straight-through"
    ) -> None:
        super().__init__()
        if gradient not in GRADIENTS:
            raise ValueError(f"gradient must be one of {', '.join(GRADIENTS)}; it is {gradient!r}")
        self.codebook_size, self.dim, self.commitment, self.passed = codebook_size, dim, commitment, GRADIENTS[gradient]
        self.register_buffer("base", torch.randn(codebook_size, dim) / dim**0.5)
        self.map = nn.Linear(dim, dim, bias=False)

    def forward(self, latents: Tensor) -> Quantized:
        """(B, N, D); statistics `perplexity` and `used` (share of the entries) of this batch."""
        table = self.table()
        indices = nearest(self.anchors(latents), table)[..., 0]
        latents, vectors = latents.float(), F.embedding(indices[..., 0], table[0])
        loss = matching_loss(latents, vectors, self.commitment)
        return Quantized(self.passed(latents, vectors), indices, loss, usage(indices, self.codebook_size))

    def lookup(self, indices: Tensor) -> Tensor:
        """int64 (B, N, 1) to vectors (B, N, D). Raises IndexError outside the codebook."""
        return F.embedding(indices[..., 0], self.table()[0])

    def table(self) -> Tensor:
        """(1, K, D)."""
        with exact(self.base):
            entries: Tensor = self.map(self.base)
        return entries[None]

    def anchors(self, latents: Tensor) -> Tensor:
        """(B, N, D) to (B, N, 1, D)."""
        return latents.float()[:, :, None]
