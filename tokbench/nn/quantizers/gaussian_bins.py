"""Dimension-wise bins for the latents of a trained continuous tokenizer; nothing is learned."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.nn.quantizers.quantizer import Quantized, Quantizer, straight_through, usage


def normal_edges(count: int, span: float) -> Tensor:
    """The float64 (count + 1,) edges of `count` bins that N(0, 1) fills equally, clipped to [-span, span]."""
    return torch.special.ndtri(torch.linspace(0, 1, count + 1, dtype=torch.float64)).clamp(-span, span)


def normal_means(edges: Tensor) -> Tensor:
    """The mean of N(0, 1) within each bin of edges (n + 1,), float64 (n,); of an empty bin its edge."""
    density = torch.exp(-edges.square() / 2) / math.sqrt(2 * math.pi)
    mass = torch.special.ndtr(edges).diff()
    return torch.where(mass > 0, -density.diff() / mass, edges[1:])


class GaussianBins(Quantizer):
    """Each of the `dim` latents by itself to one of K = 2^bits values (TokenBridge, 2503.16430); G = D, loss 0.

    A latent is clamped to [-limit, limit] and mapped linearly to [-span, span]. The values are the means of N(0, 1)
    within 2^bits bins that it fills equally, cut off at the span; a latent becomes the nearest value, mapped back.
    With more than 9 bits and a span of 3 the outermost bins lie beyond it: their values are the span itself, and all
    but the first of equal ones stay unused. uniform: bins of equal width instead, and their middles.
    Raises ValueError for fewer than 1 bit.
    """

    values: Tensor
    middles: Tensor
    firsts: Tensor

    def __init__(self, bits: int, dim: int, *, limit: float = 5.0, span: float = 3.0, uniform: bool = False) -> None:
        super().__init__()
        if bits < 1:
            raise ValueError(f"bits must be at least 1, there are {bits}")
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
        """(B, N, D); statistics `perplexity` and `used` (share of the values) of this batch, means over latents."""
        # Which value is nearest follows from the middles between them; a table of all distances would be K times that.
        indices = self.firsts[torch.bucketize(self.anchors(latents).detach()[..., 0].contiguous(), self.middles)]
        vectors = straight_through(latents.float(), self.lookup(indices))
        return Quantized(vectors, indices, vectors.new_zeros(()), usage(indices, self.codebook_size))

    def lookup(self, indices: Tensor) -> Tensor:
        """int64 (B, N, D) to vectors (B, N, D). Raises IndexError outside the values."""
        return F.embedding(indices, self.values[:, None])[..., 0] * (self.limit / self.span)

    def table(self) -> Tensor:
        """(D, K, 1): the same values, within the span, for every latent."""
        return self.values[:, None].expand(self.groups, -1, -1)

    def anchors(self, latents: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D, 1): clamped and mapped to the span."""
        return (latents.float().clamp(-self.limit, self.limit) * (self.span / self.limit))[..., None]
