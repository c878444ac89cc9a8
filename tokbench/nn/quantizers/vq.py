"""Vector quantization with one codebook, learned by gradient or by exponential moving averages."""

from __future__ import annotations

from typing import Literal, TypedDict

import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor, nn

from tokbench.nn.quantizers.quantizer import (
    GRADIENTS,
    Gradient,
    Quantized,
    Quantizer,
    count_codes,
    distances,
    entropy_loss,
    matching_loss,
    nearest,
    usage,
)

Update = Literal["gradient", "ema"]
SMOOTHING = 1e-5

START_LATENTS, START_PASSES = 65_536, 20
"""Number of latents and of passes of the k-means that chooses the first codebook."""


def k_means_centres(latents: Tensor, count: int) -> Tensor:
    """Return `count` k-means centres (count, D) of latents (M, D), of which at most `START_LATENTS` are used, drawn
    evenly; fewer centres if there are fewer latents."""
    chosen = latents[:: max(1, len(latents) // START_LATENTS)].cpu().numpy()
    found = KMeans(min(count, len(chosen)), n_init=1, max_iter=START_PASSES, random_state=0).fit(chosen)
    return torch.from_numpy(found.cluster_centers_).to(latents.device)


class VQOptions(TypedDict, total=False):
    """Options that composite quantizers pass on to each `VectorQuantizer`, which documents them."""

    commitment: float
    update: Update
    decay: float
    restart_after: int | None
    gradient: Gradient
    entropy: float
    entropy_temperature: float


class VectorQuantizer(Quantizer):
    """Replaces latents by the nearest of K = `codebook_size` entries of `dim` values (VQ-VAE, arXiv:1711.00937); G = 1.

    normalised: latents and entries are l2-normalised, in the search and in the output (ViT-VQGAN, arXiv:2110.04627).
    commitment: weight of the commitment loss. update: "gradient" learns the codebook by the codebook loss, with weight
    1; "ema" sets every entry to the moving average, with `decay`, of the latents that chose it.
    restart_after: number of consecutive training passes after which an unused entry is replaced by a random latent of
    the batch, drawn with torch's global generator; None disables restarts.
    gradient: the gradient estimator from vectors to latents. entropy: weight of the entropy loss, computed at
    `entropy_temperature`. used_from: see `Quantizer`.
    The moving averages are not synchronised between processes. Raises ValueError for invalid options.
    """

    codebook: Tensor
    masses: Tensor
    sums: Tensor
    ages: Tensor
    groups = 1
    whitened = False

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
                f"not {update!r} and {gradient!r}"
            )
        if not 0 <= decay <= 1 or (restart_after is not None and restart_after < 1):
            raise ValueError(f"decay must be 0 to 1 and restart_after 1 or more, not {decay} and {restart_after}")
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
            # Every entry starts with the mass of one latent, which avoids a division by zero in the first averages.
            self.register_buffer("masses", torch.ones(codebook_size))
            self.register_buffer("sums", entries.clone())
        if restart_after is not None:
            self.register_buffer("ages", torch.zeros(codebook_size, dtype=torch.int64))

    @torch.no_grad()
    def start(self, latents: Tensor) -> None:
        """Set the codebook to the k-means centres of latents (M, D), at most `START_LATENTS` of them, drawn evenly.

        If there are fewer latents than entries, the other entries stay random.
        """
        centres = k_means_centres(self.anchors(latents[None])[0, :, 0], self.codebook_size)
        self.codebook[: len(centres)] = centres
        if not self.learned:
            self.sums.copy_(self.codebook)

    def forward(self, latents: Tensor) -> Quantized:
        """Quantize (B, N, D), with the statistics `perplexity` and `used` (share of the entries) of this batch."""
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
        """Map int64 (B, N, 1) to vectors (B, N, D). Raises IndexError outside the codebook."""
        return F.embedding(indices[..., 0], self.table()[0])

    def table(self) -> Tensor:
        """Return the entries (1, K, D), normalised if the option is set."""
        # A copy, since `learn` changes the codebook in place before the backward pass uses the saved entries.
        entries = self.codebook.float().clone()[None]
        return F.normalize(entries, dim=-1) if self.normalised else entries

    def anchors(self, latents: Tensor) -> Tensor:
        """Return latents (B, N, D) as (B, N, 1, D), normalised if the option is set."""
        values = latents.float()[:, :, None]
        return F.normalize(values, dim=-1) if self.normalised else values

    def match(self, latents: Tensor, vectors: Tensor) -> Tensor:
        """Return the weighted codebook and commitment losses of latents and vectors of one shape, a scalar."""
        return matching_loss(latents, vectors, self.commitment, self.learned)

    def spread(self, anchors: Tensor, table: Tensor) -> Tensor:
        """Return the weighted entropy loss of anchors (B, N, 1, D), a scalar; temperature 0.01 is FQGAN's."""
        if not self.entropy:
            return anchors.new_zeros(())
        return self.entropy * entropy_loss(distances(anchors, table), self.entropy_temperature)

    @torch.no_grad()
    def learn(self, anchors: Tensor, indices: Tensor) -> None:
        """Update what is not learned by gradient: the moving averages, then the restarts of unused entries.

        anchors: (B, N, 1, D). indices: the entries that they chose, (B, N, 1).
        """
        latents, counts = anchors.detach().flatten(0, 2), count_codes(indices, self.codebook_size)[0]
        if not self.learned:
            sums = torch.zeros_like(self.sums).index_add_(0, indices.flatten(), latents)
            self.masses.lerp_(counts.float(), 1 - self.decay)
            self.sums.lerp_(sums, 1 - self.decay)
            total = self.masses.sum()
            smoothed = (self.masses + SMOOTHING) * total / (total + self.codebook_size * SMOOTHING)
            # Unused entries stay as they are: mass and sum decay equally, and smoothing would pull them to the origin.
            chosen = counts[:, None] > 0
            self.codebook.copy_(torch.where(chosen, self.sums / smoothed[:, None], self.codebook))
        if self.restart_after is not None:
            self.ages.add_(1).masked_fill_(counts > 0, 0)
            self.restart(latents, self.ages >= self.restart_after)

    def restart(self, latents: Tensor, dead: Tensor) -> None:
        """Replace the entries where `dead` (K,) is True by latents (M, D), distinct ones if there are enough."""
        order = torch.randperm(len(latents), device=latents.device)
        fresh = latents[order[(dead.cumsum(0) - 1).clamp_min(0) % len(latents)]]
        self.codebook.copy_(torch.where(dead[:, None], fresh, self.codebook))
        self.ages.masked_fill_(dead, 0)
        if not self.learned:
            self.masses.masked_fill_(dead, 1)
            self.sums.copy_(torch.where(dead[:, None], fresh, self.sums))
