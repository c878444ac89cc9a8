"""A rectified-flow decoder: a transformer that maps noise to latents along straight paths, conditioned on tokens.

Rectified flow: Liu et al. (arXiv:2209.03003). The norms are adaptive as in DiT (arXiv:2212.09748), with one modulation
shared by all blocks as in PixArt (arXiv:2310.00426), separate for patches and tokens as in FlexTok (arXiv:2502.13967).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tokbench.nn.vit import Attention, initialise, mlp, random_parameter, sincos_positions


class FlowDecoder(nn.Module):
    """Predicts the velocity of noised latents (B, N, C) conditioned on tokens (B, K, D).

    x_t = (1 - t) x + t noise, so the velocity is noise - x; t runs from 1 (noise) to 0 (data). Tokens where `keep`
    (B, K) is False are replaced by one learned vector; if all are replaced, the network is the unconditional model of
    classifier-free guidance.

    patches, channels: N and C. tokens, dim: the largest K, and D. grid: whether the latents form a square grid in
    row-major order (sine and cosine positions) or a sequence (learned positions). gate: initial value of the gates of
    the residual branches. With DiT's initial value of 0 the tokens have no effect in the first steps, and an encoder
    that is trained jointly may lose the information about the image in that time.
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
        self.positions = sincos_positions(math.isqrt(patches), width) if grid else random_parameter(patches, width)
        self.places, self.dropped = random_parameter(tokens, width), random_parameter(width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        modulate = [nn.Linear(width, 6 * width) for _ in range(2)]
        self.modulate = nn.ModuleDict(dict(zip(("patches", "tokens"), modulate, strict=True)))
        self.blocks = nn.ModuleList(_Block(width, heads, gate) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width, elementwise_affine=False), nn.Linear(width, channels)
        self.last = nn.Linear(width, 2 * width)
        self.apply(initialise)
        for zero in (*modulate, self.last, self.head):  # time, and with gate 0 each block, starts without effect
            nn.init.zeros_(zero.weight)

    def forward(
        self, noised: Tensor, time: Tensor, tokens: Tensor, keep: Tensor | None = None, control: Sequence[Tensor] = ()
    ) -> Tensor:
        """Return the velocity (B, N, C) of `noised` (B, N, C) at `time` (B,) in [0, 1], given `tokens` (B, K, D).

        control: features (B, N, width) that are added to those of the patches after each of the first blocks.
        """
        x, modulation, condition = self.embedded(noised, time, tokens, keep)
        for number, block in enumerate(self.blocks):
            x = block(x, modulation)
            if number < len(control):
                x = x + nn.functional.pad(control[number], (0, 0, 0, x.shape[1] - self.patches))
        shift, scale = self.last(condition)[:, None].chunk(2, -1)
        return self.head(self.norm(x[:, : self.patches]) * (1 + scale) + shift)

    def embedded(
        self, noised: Tensor, time: Tensor, tokens: Tensor, keep: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Return the inputs of the blocks: features (B, N + K, width) of patches and then tokens, the modulation of
        each position, and the embedding (B, width) of the time."""
        conditioning = self.embed(tokens)
        if keep is not None:
            conditioning = torch.where(keep[..., None], conditioning, self.dropped)
        x = torch.cat([self.noised(noised) + self.positions, conditioning + self.places[: tokens.shape[1]]], 1)
        condition = self.time(timestep_embedding(time, self.width))
        modulation = torch.stack([self.modulate["patches"](condition), self.modulate["tokens"](condition)], 1).chunk(
            6, -1
        )
        counts = torch.tensor([self.patches, tokens.shape[1]], device=x.device)
        per_position = [part.repeat_interleave(counts, 1, output_size=int(x.shape[1])) for part in modulation]
        return x, per_position, condition

    def sample(
        self,
        tokens: Tensor,
        seeds: Sequence[int],
        steps: int,
        guidance: float = 1.0,
        keep: Tensor | None = None,
        differentiable: int = 0,
    ) -> Tensor:
        """Sample latents (B, N, C) in `steps` Euler steps of equal length; the noise depends on `seeds` (B,) only.

        guidance: scale of classifier-free guidance (Ho and Salimans, arXiv:2207.12598),
        v = v_without + guidance (v_with - v_without); 1 disables it. differentiable: number of last steps through which
        gradients flow to `tokens`.
        """
        x = seeded_noise(seeds, (self.patches, self.channels)).to(tokens)
        none_kept = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        for step in range(steps):
            with torch.set_grad_enabled(step >= steps - differentiable):
                time = torch.full((len(x),), 1 - step / steps, device=x.device)
                velocity = self(x, time, tokens, keep)
                if guidance != 1:
                    without = self(x, time, tokens, none_kept)
                    velocity = without + guidance * (velocity - without)
                x = x - velocity / steps
        return x


class _Block(nn.Module):
    """A transformer block with adaptive norms: shift, scale and gate of modulation branches are inputs (adaLN, DiT)."""

    def __init__(self, width: int, heads: int, gate: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.attention, self.mlp = Attention(width, heads), mlp(width)
        self.own = nn.Parameter(torch.zeros(6, width))  # shift, scale and gate of attention, then of the MLP
        with torch.no_grad():
            self.own[[2, 5]] = gate

    def forward(self, x: Tensor, condition: Sequence[Tensor]) -> Tensor:
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = (
            part + own for part, own in zip(condition, self.own, strict=True)
        )
        x = x + gate * self.attention(self.norm(x) * (1 + scale) + shift)
        return x + gate_mlp * self.mlp(self.norm(x) * (1 + scale_mlp) + shift_mlp)


def timestep_embedding(time: Tensor, width: int) -> Tensor:
    """Return sine and cosine embeddings (B, width) of times (B,) in [0, 1]; frequencies are 1 to 1,000 radians."""
    frequencies = torch.exp(torch.linspace(0, math.log(1000), width // 2, device=time.device))
    angles = time[:, None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


def logit_normal(batch: int, device: torch.device) -> Tensor:
    """Draw training times (B,): the sigmoid of a normal variable, most often near 1/2 (SD3, arXiv:2403.03206)."""
    return torch.randn(batch, device=device).sigmoid()


def add_noise(latents: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Interpolate latents (B, ...) with normal noise at `time` (B,); also return the target velocity (B, ...)."""
    noise = torch.randn_like(latents)
    t = time.view(-1, *[1] * (latents.dim() - 1)).to(latents)
    return (1 - t) * latents + t * noise, noise - latents


def gaussian_velocity(noised: Tensor, time: Tensor, mean: Tensor | float, deviation: Tensor | float) -> Tensor:
    """Return the expected velocity (B, ...) at `noised` (B, ...) and `time` (B,) if the data are normal.

    mean, deviation: of the data, broadcastable to `noised`. With x_t = (1 - t) x + t noise, it is the expectation of
    noise - x given x_t; at t = 1 one Euler step to 0 therefore gives the mean.
    """
    t = time.view(-1, *[1] * (noised.dim() - 1)).to(noised)
    variance = deviation**2
    share = (t - (1 - t) * variance) / ((1 - t) ** 2 * variance + t**2)
    return share * (noised - (1 - t) * mean) - mean


def seeded_noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Return normal noise (B, *shape), one seed per image, drawn on the CPU so that all devices get the same values."""
    each = [torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(each)
