"""The Gaussian bottleneck of continuous tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class KL(nn.Module):
    """A sample of the encoder's Gaussian in training, its mean in evaluation (VAE, 1312.6114). Not a `Quantizer`.

    dim: D values a position, of which each takes two of the encoder's: a mean and a log-variance.
    weight: of its KL divergence from N(0, 1), in nats, a mean over all B x N x D values; so it does not depend on
    their number, and is that many times as large as the weight of a sum.
    """

    def __init__(self, dim: int, weight: float = 1e-6) -> None:
        super().__init__()
        self.dim, self.weight = dim, weight

    def forward(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, 2 D), D means and then D log-variances, to float32 latents (B, N, D) and the weighted loss, a scalar.

        Log-variances are clamped to [-30, 20], outside which their exponential is no use. The noise is drawn from
        torch's global generator. Raises ValueError for another number of moments.
        """
        if moments.shape[-1] != 2 * self.dim:
            raise ValueError(f"{moments.shape[-1]} values are not a mean and a log-variance of each of {self.dim}")
        mean, log_variance = moments.float().chunk(2, dim=-1)
        log_variance = log_variance.clamp(-30, 20)
        loss = self.weight * 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        if self.training:
            return mean + torch.randn_like(mean) * (0.5 * log_variance).exp(), loss
        return mean, loss
