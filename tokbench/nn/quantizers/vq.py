"""Vector quantization: one learned codebook, normalised or not, moved by gradient or by running means."""

from __future__ import annotations

from typing import Literal, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.quantizers.quantizer import (
    GRADIENTS,
    Gradient,
    Quantized,
    Quantizer,
    counted,
    distances,
    entropy_loss,
    matching_loss,
    nearest,
    usage,
)

Update = Literal["gradient", "ema"]
SMOOTHING = 1e-5


class VQOptions(TypedDict, total=False):
    """What quantizers that are made of `VectorQuantizer`s pass on to each of them; explained there."""

    commitment: float
    update: Update
    decay: float
    restart_after: int | None
    gradient: Gradient
    entropy: float
    entropy_temperature: float


class VectorQuantizer(Quantizer):
    """The nearest of K = `codebook_size` entries of `dim` values (VQ-VAE, 1711.00937); G = 1.

    normalised: latents and entries are brought to length 1 for choosing and on lookup, so the decoder gets the
    normalised entry (ViT-VQGAN, 2110.04627).
    commitment: weight of the latents' pull to their entries. update: "gradient" learns the codebook with the codebook
    loss, of weight 1; "ema" moves every entry to the running mean, of `decay`, of the latents that chose it.
    restart_after: entries that so many training passes in a row did not use become latents of the present batch, drawn
    from torch's global generator; None never restarts one.
    gradient: what passes from vectors to latents. entropy: weight of the entropy loss at `entropy_temperature`.
    used_from: as `Quantizer` says.
    One process: the running means are not shared between several.
    Raises ValueError for options that do not exist or make no sense.
    """

    codebook: Tensor
    masses: Tensor
    sums: Tensor
    ages: Tensor
    groups = 1

    def __init__(
        self,
        codebook_size: int,
        dim: int,
        *,
        normalised: bool = True,
        commitment: float = 0.25,
        update: Update = "gradient",
        decay: float = 0.99,
        restart_after: int | None = None,
        gradient: Gradient = "straight-through",
        entropy: float = 0.0,
        entropy_temperature: float = 0.01,
        used_from: float = 0.0,
    ) -> None:
        super().__init__()
        if update not in ("gradient", "ema") or gradient not in GRADIENTS:
            raise ValueError(
                f"update must be 'gradient' or 'ema' and gradient one of {', '.join(GRADIENTS)}; "
                f"they are {update!r} and {gradient!r}"
            )
        if not 0 <= decay <= 1 or (restart_after is not None and restart_after < 1):
            raise ValueError(f"decay must lie in 0 to 1 and restart_after be at least 1: {decay}, {restart_after}")
        self.codebook_size, self.dim, self.normalised = codebook_size, dim, normalised
        self.commitment, self.entropy, self.entropy_temperature = commitment, entropy, entropy_temperature
        self.used_from = used_from
        self.learned, self.decay, self.restart_after = update == "gradient", decay, restart_after
        self.passed = GRADIENTS[gradient]

        entries = torch.randn(codebook_size, dim) / dim**0.5
        if self.learned:
            self.codebook = nn.Parameter(entries)
        else:
            self.register_buffer("codebook", entries)
            # A mass of one latent each at first: with none, an entry's first means would be divided by nothing.
            self.register_buffer("masses", torch.ones(codebook_size))
            self.register_buffer("sums", entries.clone())
        if restart_after is not None:
            self.register_buffer("ages", torch.zeros(codebook_size, dtype=torch.int64))

    def forward(self, latents: Tensor) -> Quantized:
        """(B, N, D); statistics `perplexity` and `used` (share of the entries) of this batch."""
        anchors, table = self.anchors(latents), self.table()
        indices = nearest(anchors, table)[..., 0]
        vectors, places = F.embedding(indices[..., 0], table[0]), anchors[:, :, 0]
        loss = self.match(places, vectors) + self.spread(anchors, table)
        if self.training:
            self.learn(anchors, indices)
        return Quantized(self.passed(places, vectors), indices, loss, usage(indices, self.codebook_size))

    def unquantized(self, latents: Tensor) -> Tensor:
        return self.anchors(latents)[:, :, 0]

    def lookup(self, indices: Tensor) -> Tensor:
        """int64 (B, N, 1) to vectors (B, N, D). Raises IndexError outside the codebook."""
        return F.embedding(indices[..., 0], self.table()[0])

    def table(self) -> Tensor:
        """(1, K, D)."""
        # A copy: `learn` moves the codebook in place, before the backward pass has read what it saved of it.
        entries = self.codebook.float().clone()[None]
        return F.normalize(entries, dim=-1) if self.normalised else entries

    def anchors(self, latents: Tensor) -> Tensor:
        """(B, N, D) to (B, N, 1, D)."""
        values = latents.float()[:, :, None]
        return F.normalize(values, dim=-1) if self.normalised else values

    def match(self, latents: Tensor, vectors: Tensor) -> Tensor:
        """The weighted loss between latents and vectors of one shape, a scalar."""
        return matching_loss(latents, vectors, self.commitment, self.learned)

    def spread(self, anchors: Tensor, table: Tensor) -> Tensor:
        """The weighted entropy loss of anchors (B, N, 1, D), a scalar; FQGAN's (2411.16681) at temperature 0.01."""
        if not self.entropy:
            return anchors.new_zeros(())
        return self.entropy * entropy_loss(distances(anchors, table), self.entropy_temperature)

    @torch.no_grad()
    def learn(self, anchors: Tensor, indices: Tensor) -> None:
        """One training step of what no gradient moves: running means, then restarts.

        anchors (B, N, 1, D) and the entries they chose, (B, N, 1).
        """
        latents, counts = anchors.detach().flatten(0, 2), counted(indices, self.codebook_size)[0]
        if not self.learned:
            sums = torch.zeros_like(self.sums).index_add_(0, indices.flatten(), latents)
            self.masses.lerp_(counts.float(), 1 - self.decay)
            self.sums.lerp_(sums, 1 - self.decay)
            total = self.masses.sum()
            smoothed = (self.masses + SMOOTHING) * total / (total + self.codebook_size * SMOOTHING)
            # Nobody's entries keep their means, mass and sum fading alike; smoothing would draw them to the origin.
            chosen = counts[:, None] > 0
            self.codebook.copy_(torch.where(chosen, self.sums / smoothed[:, None], self.codebook))
        if self.restart_after is not None:
            self.ages.add_(1).masked_fill_(counts > 0, 0)
            self.restart(latents, self.ages >= self.restart_after)

    def restart(self, latents: Tensor, dead: Tensor) -> None:
        """Puts the entries `dead` (K,) on latents (M, D), different ones while there are enough."""
        order = torch.randperm(len(latents), device=latents.device)
        fresh = latents[order[(dead.cumsum(0) - 1).clamp_min(0) % len(latents)]]
        self.codebook.copy_(torch.where(dead[:, None], fresh, self.codebook))
        self.ages.masked_fill_(dead, 0)
        if not self.learned:
            self.masses.masked_fill_(dead, 1)
            self.sums.copy_(torch.where(dead[:, None], fresh, self.sums))
