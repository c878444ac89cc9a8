"""SimVQ: a frozen random codebook with a learned linear map, so that every training step moves every entry."""

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
from tokbench.nn.quantizers.vq import k_means_centres


class SimVQ(Quantizer):
    """Replaces latents by the nearest of K = `codebook_size` entries W c_k (SimVQ, arXiv:2411.02038); G = 1.

    The vectors c_k are fixed: `dim` normal values with standard deviation dim^-1/2, unless `start` chooses them. W is
    learned. The codebook loss has weight 1 and the commitment loss the weight `commitment`, as in ILLUME+
    (arXiv:2504.01934). Raises ValueError for an unknown `gradient`.
    """

    base: Tensor
    groups = 1
    whitened = False

    def __init__(
        self, codebook_size: int, dim: int, *, commitment: float = 0.25, gradient: Gradient = "straight-through"
    ) -> None:
        super().__init__()
        if gradient not in GRADIENTS:
            raise ValueError(f"gradient must be one of {', '.join(GRADIENTS)}, not {gradient!r}")
        self.codebook_size, self.dim, self.commitment, self.passed = codebook_size, dim, commitment, GRADIENTS[gradient]
        self.register_buffer("base", torch.randn(codebook_size, dim) / dim**0.5)
        self.map = nn.Linear(dim, dim, bias=False)

    @torch.no_grad()
    def start(self, latents: Tensor) -> None:
        """Set the vectors c_k to the k-means centres of latents (M, D), and W to the identity.

        If there are fewer latents than entries, the other entries stay random.
        """
        centres = k_means_centres(latents.float(), self.codebook_size)
        self.base[: len(centres)] = centres
        nn.init.eye_(self.map.weight)

    def forward(self, latents: Tensor) -> Quantized:
        """Quantize (B, N, D), with the statistics `perplexity` and `used` (share of the entries) of this batch."""
        table = self.table()
        indices = nearest(self.anchors(latents), table)[..., 0]
        latents, vectors = latents.float(), F.embedding(indices[..., 0], table[0])
        loss = matching_loss(latents, vectors, self.commitment)
        return Quantized(self.passed(latents, vectors), indices, loss, usage(indices, self.codebook_size))

    def lookup(self, indices: Tensor) -> Tensor:
        """Map int64 (B, N, 1) to vectors (B, N, D). Raises IndexError outside the codebook."""
        return F.embedding(indices[..., 0], self.table()[0])

    def table(self) -> Tensor:
        """Return the entries W c_k, (1, K, D)."""
        with exact(self.base):
            entries: Tensor = self.map(self.base)
        return entries[None]

    def anchors(self, latents: Tensor) -> Tensor:
        """Return latents (B, N, D) as (B, N, 1, D)."""
        return latents.float()[:, :, None]
