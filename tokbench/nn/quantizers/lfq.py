"""Lookup-free quantization in groups: the code is the signs of the latents, with an entropy loss per group."""

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
    """Quantizes `groups` x `bits` latents to their signs (MAGVIT-v2, arXiv:2310.05737).

    D = groups * bits, G = groups, K = 2^bits. The first latent of a group is the lowest bit of its index; a latent of 0
    counts as negative. The loss is `commitment` times the commitment loss plus `entropy` times the entropy loss. As in
    WeTok (arXiv:2508.05599) the latter is computed for every group over its K entries, with the probabilities
    softmax(2 x.c / temperature), so memory grows with G * 2^bits.
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
        """Quantize (B, N, D); the statistics `perplexity` and `used` of this batch are means over groups."""
        latents, anchors = latents.float(), self.anchors(latents)
        indices = ((anchors > 0) * self.places).sum(-1)
        vectors = self.lookup(indices)
        loss = matching_loss(latents, vectors, self.commitment, learned=False)
        if self.entropy:
            # Squared distances differ from -2 x.c by a term common to all entries, so the softmax is the same.
            loss = loss + self.entropy * entropy_loss(distances(anchors, self.table()), self.temperature)
        return Quantized(straight_through(latents, vectors), indices, loss, usage(indices, self.codebook_size))

    def lookup(self, indices: Tensor) -> Tensor:
        """Map int64 (B, N, G) to signs (B, N, D). Raises IndexError outside the codebook."""
        return F.embedding(indices, self.codes).flatten(2)

    def table(self) -> Tensor:
        """Return all sign combinations (G, K, bits), the same for every group."""
        return self.codes.expand(self.groups, -1, -1)

    def anchors(self, latents: Tensor) -> Tensor:
        """Split latents (B, N, D) into groups (B, N, G, bits)."""
        return latents.float().unflatten(-1, (self.groups, self.bits))
