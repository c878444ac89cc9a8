"""The Gaussian bottleneck of variational autoencoders, for continuous tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class KL(nn.Module):
    """Samples from the encoder's Gaussian in training and returns its mean in evaluation (VAE, arXiv:1312.6114).

    It is not a `Quantizer`. dim: number D of latent values per position; the encoder gives a mean and a log-variance
    for each. weight: weight of the KL divergence from N(0, 1) in nats, averaged over all B x N x D values. The weight
    for a sum over these values would be smaller by the factor B x N x D.
    """

    def __init__(self, dim: int, weight: float = 1e-6) -> None:
        super().__init__()
        self.dim, self.weight = dim, weight

    def forward(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32 latents (B, N, D) and the weighted KL loss, a scalar.

        moments: (B, N, 2 D), D means followed by D log-variances. Log-variances are clamped to [-30, 20] to keep their
        exponentials finite and positive. The noise comes from torch's global generator. Raises ValueError if the last
        dimension is not 2 D.
        """
        if moments.shape[-1] != 2 * self.dim:
            raise ValueError(f"{self.dim} means and log-variances need {2 * self.dim} values, not {moments.shape[-1]}")
        mean, log_variance = moments.float().chunk(2, dim=-1)
        log_variance = log_variance.clamp(-30, 20)
        loss = self.weight * 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        if self.training:
            return mean + torch.randn_like(mean) * (0.5 * log_variance).exp(), loss
        return mean, loss
