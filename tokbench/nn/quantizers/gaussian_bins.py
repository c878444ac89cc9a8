"""Scalar quantization of a trained continuous tokenizer's latents, per dimension and without training."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.nn.quantizers.quantizer import Quantized, Quantizer, straight_through, usage


def normal_edges(count: int, span: float) -> Tensor:
    """Return edges, float64 (count + 1,), of `count` bins with equal probability under N(0, 1), clipped to +-span."""
    return torch.special.ndtri(torch.linspace(0, 1, count + 1, dtype=torch.float64)).clamp(-span, span)


def normal_means(edges: Tensor) -> Tensor:
    """Return the mean of N(0, 1) within each bin of edges (n + 1,), float64 (n,); for an empty bin, its edge."""
    density = torch.exp(-edges.square() / 2) / math.sqrt(2 * math.pi)
    mass = torch.special.ndtr(edges).diff()
    return torch.where(mass > 0, -density.diff() / mass, edges[1:])


class GaussianBins(Quantizer):
    """Quantizes each of `dim` latents to one of K = 2^bits values (TokenBridge, arXiv:2503.16430); G = D, loss 0.

    A latent is clamped to [-limit, limit], mapped linearly to [-span, span], replaced by the nearest value and mapped
    back. The values are the means of N(0, 1) within 2^bits bins of equal probability, clipped to the span. With more
    than 9 bits and a span of 3 the outermost bins lie outside the span: their values equal the span, and of equal
    values only the first is used. uniform: use the centres of bins of equal width instead.
    Raises ValueError for fewer than 1 bit.
    """

    values: Tensor
    middles: Tensor
    firsts: Tensor

    def __init__(self, bits: int, dim: int, *, limit: float = 5.0, span: float = 3.0, uniform: bool = False) -> None:
        super().__init__()
        if bits < 1:
            raise ValueError(f"bits must be at least 1, not {bits}")
        self.dim = self.groups = dim
        self.codebook_size, self.limit, self.span = 2**bits, limit, span
        if uniform:
            edges = torch.linspace(-span, span, self.codebook_size + 1, dtype=torch.float64)
            values = (edges[1:] + edges[:-1]) / 2
        else:
            values = normal_means(normal_edges(self.codebook_size, span))
        values = values.float()
        self.register_buffer("values", values, persistent=False)
        self.register_buffer("middles", (values[1:] + values[:-1]) / 2, persistent=False)
        self.register_buffer("firsts", torch.searchsorted(values, values), persistent=False)

    def forward(self, latents: Tensor) -> Quantized:
        """Quantize (B, N, D); the statistics `perplexity` and `used` of this batch are means over dimensions."""
        # Midpoints between values decide which one is nearest; a table of distances would need K times the memory.
        indices = self.firsts[torch.bucketize(self.anchors(latents).detach()[..., 0].contiguous(), self.middles)]
        vectors = straight_through(latents.float(), self.lookup(indices))
        return Quantized(vectors, indices, vectors.new_zeros(()), usage(indices, self.codebook_size))

    def lookup(self, indices: Tensor) -> Tensor:
        """Map int64 (B, N, D) to vectors (B, N, D). Raises IndexError for indices outside 0 to K - 1."""
        return F.embedding(indices, self.values[:, None])[..., 0] * (self.limit / self.span)

    def table(self) -> Tensor:
        """Return the values within the span, (D, K, 1), the same for every dimension."""
        return self.values[:, None].expand(self.groups, -1, -1)

    def anchors(self, latents: Tensor) -> Tensor:
        """Return latents (B, N, D) clamped and mapped to the span, (B, N, D, 1)."""
        return (latents.float().clamp(-self.limit, self.limit) * (self.span / self.limit))[..., None]
