"""A rectified-flow decoder: a transformer that turns noise into latents along straight lines, told by tokens whither.

Liu et al., Flow Straight and Fast (arXiv:2209.03003); adaptive norms as in DiT (arXiv:2212.09748) with one modulation
for all blocks as in PixArt (arXiv:2310.00426), apart for patches and for tokens as in FlexTok (arXiv:2502.13967).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tokbench.nn.vit import Attention, initialise, learned, mlp, placed


class FlowDecoder(nn.Module):
    """Velocity of noised latents (B, N, C), given tokens (B, K, D).

    x_t = (1 - t) x + t noise, so the velocity is noise - x; t runs from 1 (noise) to 0. Tokens where `keep` (B, K) is
    False are replaced by one learned vector; with none kept, the network is the unconditional one of guidance. grid:
    whether latents are those of a square, row by row, and no row. gate: by how much of its branches a block changes its
    input at first; with DiT's 0 the tokens are not heard in the first steps, and an encoder that is trained beside a
    decoder that does not hear it may forget the image before it does.
    """

    def __init__(
        self,
        patches: int,
        channels: int,
        tokens: int,
        dim: int,
        width: int,
        depth: int,
        heads: int,
        grid: bool = True,
        gate: float = 0.0,
    ) -> None:
        super().__init__()
        self.patches, self.channels, self.width = patches, channels, width
        self.noised, self.embed = nn.Linear(channels, width), nn.Linear(dim, width)
        self.positions = placed(math.isqrt(patches), width) if grid else learned(patches, width)
        self.places, self.dropped = learned(tokens, width), learned(width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        modulate = [nn.Linear(width, 6 * width) for _ in range(2)]
        self.modulate = nn.ModuleDict(dict(zip(("patches", "tokens"), modulate, strict=True)))
        self.blocks = nn.ModuleList(_Block(width, heads, gate) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width, elementwise_affine=False), nn.Linear(width, channels)
        self.last = nn.Linear(width, 2 * width)
        self.apply(initialise)
        for zero in (*modulate, self.last, self.head):  # time changes nothing at first; with gate 0, nor does a block
            nn.init.zeros_(zero.weight)

    def forward(self, noised: Tensor, time: Tensor, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        """noised (B, N, C), time (B,) in [0, 1], tokens (B, K, D): the velocity (B, N, C)."""
        known = self.embed(tokens)
        if keep is not None:
            known = torch.where(keep[..., None], known, self.dropped)
        x = torch.cat([self.noised(noised) + self.positions, known + self.places[: tokens.shape[1]]], 1)
        told = self.time(waves(time, self.width))
        both = torch.stack([self.modulate["patches"](told), self.modulate["tokens"](told)], 1).chunk(6, -1)
        counts = torch.tensor([self.patches, tokens.shape[1]], device=x.device)
        spread = [part.repeat_interleave(counts, 1, output_size=int(x.shape[1])) for part in both]
        for block in self.blocks:
            x = block(x, spread)
        shift, scale = self.last(told)[:, None].chunk(2, -1)
        return self.head(self.norm(x[:, : self.patches]) * (1 + scale) + shift)

    @torch.no_grad()
    def sample(
        self, tokens: Tensor, seeds: Sequence[int], steps: int, guidance: float = 1.0, keep: Tensor | None = None
    ) -> Tensor:
        """Latents (B, N, C) by `steps` Euler steps of equal length from noise that `seeds` alone decide.

        guidance: v = v_without + guidance (v_with - v_without), Ho and Salimans (arXiv:2207.12598); 1 is none.
        """
        x = seeded_noise(seeds, (self.patches, self.channels)).to(tokens)
        nothing = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        for step in range(steps):
            time = torch.full((len(x),), 1 - step / steps, device=x.device)
            velocity = self(x, time, tokens, keep)
            if guidance != 1:
                without = self(x, time, tokens, nothing)
                velocity = without + guidance * (velocity - without)
            x = x - velocity / steps
        return x


class _Block(nn.Module):
    """A transformer block whose norms are shifted and scaled, and whose branches are gated, from outside."""

    def __init__(self, width: int, heads: int, gate: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.attention, self.mlp = Attention(width, heads), mlp(width)
        self.own = nn.Parameter(torch.zeros(6, width))  # shift, scale and gate, of attention and MLP
        with torch.no_grad():
            self.own[[2, 5]] = gate

    def forward(self, x: Tensor, told: Sequence[Tensor]) -> Tensor:
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = (
            part + own for part, own in zip(told, self.own, strict=True)
        )
        x = x + gate * self.attention(self.norm(x) * (1 + scale) + shift)
        return x + gate_mlp * self.mlp(self.norm(x) * (1 + scale_mlp) + shift_mlp)


def waves(time: Tensor, width: int) -> Tensor:
    """Times (B,) in [0, 1] as sines and cosines (B, width) of 1 to 1,000 radians."""
    frequencies = torch.exp(torch.linspace(0, math.log(1000), width // 2, device=time.device))
    angles = time[:, None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


def logit_normal(batch: int, device: torch.device) -> Tensor:
    """Times (B,) for training: the sigmoid of a normal number, so that the middle comes most often (SD3)."""
    return torch.randn(batch, device=device).sigmoid()


def noised(latents: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Latents (B, ...) at `time` (B,) on their way from noise, and the velocity that a network should find there."""
    noise = torch.randn_like(latents)
    t = time.view(-1, *[1] * (latents.dim() - 1)).to(latents)
    return (1 - t) * latents + t * noise, noise - latents


def seeded_noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Normal noise (B, *shape), each image's from its own seed, drawn on the CPU so that devices agree."""
    each = [torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(each)
