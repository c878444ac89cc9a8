"""Binary latents: a position is a set of bits, which are sampled in training and thresholded in evaluation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokbench.nn.quantizers.quantizer import Quantized, Quantizer, exact, straight_through, usage


class BernoulliBits(Quantizer):
    """Quantizes a position to `bits` bits, each its own group (Instella-T2I, arXiv:2506.21022); G = bits, K = 2.

    A linear layer maps the D = `dim` latents to logits. In training a bit is drawn from
    Bernoulli(sigmoid(logit / temperature)) with torch's global generator; in evaluation it is sigmoid(logit) > 1/2. Its
    gradient is that of sigmoid(logit), without the temperature. The vector is the sum of the learned embeddings, `dim`
    values each, of the bits that are set. The loss is `penalty` times the mean of p (1 - p), p = sigmoid(logit), which
    moves p towards 0 or 1. used_from: see `Quantizer`.
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

    @property
    def start_dim(self) -> int:
        return self.groups

    @torch.no_grad()
    def start(self, latents: Tensor) -> None:
        """Let each bit begin as the sign of one of the first latents."""
        self.head.weight.zero_()
        self.head.weight.fill_diagonal_(2.0)
        self.head.bias.zero_()

    def logits(self, latents: Tensor) -> Tensor:
        """Return logits (B, N, bits) of latents (B, N, D)."""
        with exact(latents):
            logits: Tensor = self.head(latents.float())
        return logits

    def embedded(self, bits: Tensor) -> Tensor:
        """Map float bits (B, N, bits) to vectors (B, N, D)."""
        with exact(bits):
            return bits @ self.embedding

    def forward(self, latents: Tensor) -> Quantized:
        """Quantize (B, N, D); the statistics `perplexity` (at most 2) and `used` of this batch are means over bits."""
        logits = self.logits(latents)
        probabilities = logits.sigmoid()
        if self.training:
            bits = torch.bernoulli((logits.detach() / self.temperature).sigmoid())
        else:
            bits = (probabilities > 0.5).float()
        indices, loss = bits.to(torch.int64), self.penalty * (probabilities * (1 - probabilities)).mean()
        return Quantized(self.embedded(straight_through(probabilities, bits)), indices, loss, usage(indices, 2))

    def unquantized(self, latents: Tensor) -> Tensor:
        return self.embedded(self.logits(latents).sigmoid())

    def lookup(self, indices: Tensor) -> Tensor:
        """Map int64 (B, N, bits), each 0 or 1, to vectors (B, N, D)."""
        return self.embedded(indices.float())

    def table(self) -> Tensor:
        """Return the two values 0 and 1 of every bit, (bits, 2, 1)."""
        return self.values[:, None].expand(self.groups, -1, -1)

    def anchors(self, latents: Tensor) -> Tensor:
        """Return probabilities (B, N, bits, 1) of latents (B, N, D); the nearest value is the bit in evaluation."""
        return self.logits(latents).sigmoid()[..., None]
