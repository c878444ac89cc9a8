"""Binary latents: every position is a set of bits, drawn in training and cut at one half in evaluation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokbench.nn.quantizers.quantizer import Quantized, Quantizer, exact, straight_through, usage


class BernoulliBits(Quantizer):
    """`bits` bits a position, each a group of its own (Instella-T2I, 2506.21022): G = bits, K = 2.

    A linear layer makes logits of the D = `dim` latents. A bit is drawn from Bernoulli(sigmoid(logit / temperature)) in
    training, by torch's global generator, and is sigmoid(logit) > 1/2 in evaluation; its gradient is that of
    sigmoid(logit), without the temperature. The vector is the sum of the learned embeddings, `dim` values each, of the
    bits that are set. The loss is `penalty` times the mean of p (1 - p), p = sigmoid(logit), which makes bits decided.
    """

    values: Tensor
    codebook_size = 2

    def __init__(
        self, bits: int, dim: int, *, temperature: float = 0.1, penalty: float = 1.0, used_from: float = 0.0
    ) -> None:
        super().__init__()
        self.groups, self.dim, self.temperature, self.penalty = bits, dim, temperature, penalty
        self.used_from = used_from
        self.head = nn.Linear(dim, bits)
        self.embedding = nn.Parameter(torch.randn(bits, dim) / bits**0.5)
        self.register_buffer("values", torch.tensor([0.0, 1.0]), persistent=False)

    def logits(self, latents: Tensor) -> Tensor:
        """(B, N, D) to (B, N, bits)."""
        with exact(latents):
            logits: Tensor = self.head(latents.float())
        return logits

    def embedded(self, bits: Tensor) -> Tensor:
        """Float bits (B, N, bits) to vectors (B, N, D)."""
        with exact(bits):
            return bits @ self.embedding

    def forward(self, latents: Tensor) -> Quantized:
        """(B, N, D); statistics `perplexity` (2: as often 0 as 1) and `used` of this batch, means over bits."""
        logits = self.logits(latents)
        chances = logits.sigmoid()
        if self.training:
            bits = torch.bernoulli((logits.detach() / self.temperature).sigmoid())
        else:
            bits = (chances > 0.5).float()
        indices, loss = bits.to(torch.int64), self.penalty * (chances * (1 - chances)).mean()
        return Quantized(self.embedded(straight_through(chances, bits)), indices, loss, usage(indices, 2))

    def unquantized(self, latents: Tensor) -> Tensor:
        return self.embedded(self.logits(latents).sigmoid())

    def lookup(self, indices: Tensor) -> Tensor:
        """int64 (B, N, bits), each 0 or 1, to vectors (B, N, D)."""
        return self.embedded(indices.float())

    def table(self) -> Tensor:
        """(bits, 2, 1): 0 and 1."""
        return self.values[:, None].expand(self.groups, -1, -1)

    def anchors(self, latents: Tensor) -> Tensor:
        """(B, N, D) to chances (B, N, bits, 1): the nearest value is the bit of evaluation."""
        return self.logits(latents).sigmoid()[..., None]
