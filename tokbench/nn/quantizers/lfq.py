"""Lookup-free quantization, in groups: the signs of the latents, and a loss that uses all their combinations."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tokbench.nn.quantizers.quantizer import (
    Quantized,
    Quantizer,
    distances,
    entropy_loss,
    matching_loss,
    mixed_radix,
    straight_through,
    usage,
)


class LFQ(Quantizer):
    """Signs, -1 or 1, of `groups` x `bits` latents (MAGVIT-v2, 2310.05737; in groups: WeTok, 2508.05599).

    D = groups * bits, G = groups, K = 2^bits; the first latent of a group is its index's lowest bit, a latent of 0 is
    negative. The loss is `commitment` times the latents' pull to their signs plus `entropy` times the entropy loss of
    every group over its explicit K entries, softmax(2 x.c / temperature); so memory grows with G * 2^bits.
    """

    places: Tensor
    codes: Tensor

    def __init__(
        self,
        bits: int,
        groups: int = 1,
        *,
        entropy: float = 0.1,
        commitment: float = 0.25,
        temperature: float = 0.01,
    ) -> None:
        super().__init__()
        self.bits, self.groups, self.dim, self.codebook_size = bits, groups, bits * groups, 2**bits
        self.entropy, self.commitment, self.temperature = entropy, commitment, temperature
        places, digits = mixed_radix([2] * bits)
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("codes", 2.0 * digits - 1, persistent=False)

    def forward(self, latents: Tensor) -> Quantized:
        """(B, N, D); statistics `perplexity` and `used` (share of the entries) of this batch, means over groups."""
        latents, anchors = latents.float(), self.anchors(latents)
        indices = ((anchors > 0) * self.places).sum(-1)
        vectors = self.lookup(indices)
        loss = matching_loss(latents, vectors, self.commitment, learned=False)
        if self.entropy:
            # Distances differ from -2 x.c by what all entries share: the softmax is the same.
            loss = loss + self.entropy * entropy_loss(distances(anchors, self.table()), self.temperature)
        return Quantized(straight_through(latents, vectors), indices, loss, usage(indices, self.codebook_size))

    def lookup(self, indices: Tensor) -> Tensor:
        """int64 (B, N, G) to signs (B, N, D). Raises IndexError outside the codebook."""
        return F.embedding(indices, self.codes).flatten(2)

    def table(self) -> Tensor:
        """(G, K, bits): the same for every group."""
        return self.codes.expand(self.groups, -1, -1)

    def anchors(self, latents: Tensor) -> Tensor:
        """(B, N, D) to (B, N, G, bits)."""
        return latents.float().unflatten(-1, (self.groups, self.bits))
