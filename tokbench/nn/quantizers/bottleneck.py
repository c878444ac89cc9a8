"""All kinds of bottlenecks of autoencoders, and the one that leaves latents as they are."""

from __future__ import annotations

from torch import Tensor, nn

from tokbench.nn.quantizers.kl import KL
from tokbench.nn.quantizers.quantizer import Quantizer


class Deterministic(nn.Module):
    """Passes latents on unchanged, for continuous tokens of autoencoders without noise or a divergence.

    It is not a `Quantizer`. dim: number D of latent values per position.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32 latents (B, N, D) and the loss 0. Raises ValueError if the last dimension is not D."""
        if latents.shape[-1] != self.dim:
            raise ValueError(f"the bottleneck takes {self.dim} values per position, not {latents.shape[-1]}")
        return latents.float(), latents.new_zeros(())


Bottleneck = Quantizer | KL | Deterministic
