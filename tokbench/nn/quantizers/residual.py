"""Residual quantization: each level quantizes the residual of the earlier ones, at full or increasing resolution."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Unpack, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.quantizers.quantizer import Quantized, Quantizer, nearest, usage
from tokbench.nn.quantizers.vq import START_LATENTS, VectorQuantizer, VQOptions

START_ROUNDS = 3
"""Number of k-means runs that choose the first codebook of `MultiScaleVQ`."""


class ResidualVQ(Quantizer):
    """Approximates latents by a sum of G = `levels` entries, one per level's codebook.

    See SoundStream (arXiv:2107.03312) and RQ-VAE (arXiv:2203.01941). Entries are not normalised, since residuals have
    any length. The loss is the sum over levels. dropout: the share of training batches that use and train only the
    first n levels, n uniform on 1 to `levels` from torch's global generator; the other indices are -1, which `lookup`
    skips. options: as for `VectorQuantizer`, the same for all levels.
    """

    def __init__(
        self, levels: int, codebook_size: int, dim: int, *, dropout: float = 0.0, **options: Unpack[VQOptions]
    ) -> None:
        super().__init__()
        self.groups, self.codebook_size, self.dim, self.dropout = levels, codebook_size, dim, dropout
        made = nn.ModuleList(VectorQuantizer(codebook_size, dim, normalised=False, **options) for _ in range(levels))
        self.levels = cast("Sequence[VectorQuantizer]", made)  # typed as a list of any modules

    whitened = False

    @torch.no_grad()
    def start(self, latents: Tensor) -> None:
        """Set the codebook of each level in turn to k-means centres of the residuals that reach it."""
        residual = latents.float()[None]
        for level in self.levels:
            level.start(residual[0])
            residual = residual - level.lookup(nearest(level.anchors(residual), level.table())[..., 0])

    def forward(self, latents: Tensor) -> Quantized:
        """Quantize (B, N, D); the statistics `perplexity` and `used` of this batch are means over the levels in use."""
        residual = latents = latents.float()
        total, loss = torch.zeros_like(residual), residual.new_zeros(())
        chosen = []
        for level in self.levels[: self.kept()]:
            part = level(residual)
            vectors = part.vectors.detach()  # the gradient is that of the sum; gradients of all levels would add up
            residual, total, loss = residual - vectors, total + vectors, loss + part.loss
            chosen.append(part.indices)
        indices = torch.cat(chosen, dim=-1)
        statistics = usage(indices, self.codebook_size)
        indices = F.pad(indices, (0, self.groups - len(chosen)), value=-1)
        return Quantized(self.levels[0].passed(latents, total), indices, loss, statistics)

    def kept(self) -> int:
        """Draw the number of levels that this batch uses."""
        if self.training and self.dropout and float(torch.rand(())) < self.dropout:
            return int(torch.randint(1, self.groups + 1, ()))
        return self.groups

    def keep_first(self, levels: int) -> None:
        """Remove all levels but the first ones: fewer indices per position, of which each is as before.

        Raises ValueError unless `levels` is 1 to G.
        """
        if not 1 <= levels <= self.groups:
            raise ValueError(f"levels must be 1 to {self.groups}, not {levels}")
        self.levels, self.groups = self.levels[:levels], levels  # a slice of a ModuleList is one

    def lookup(self, indices: Tensor) -> Tensor:
        """Map int64 (B, N, G) to vectors (B, N, D); -1 adds 0. Raises IndexError for other invalid indices."""
        total = torch.zeros(*indices.shape[:2], self.dim, device=indices.device)
        for level, chosen in zip(self.levels, indices.split(1, dim=-1), strict=True):
            left_out = chosen == -1
            total = total + level.lookup(chosen.masked_fill(left_out, 0)).masked_fill(left_out, 0)
        return total

    def table(self) -> Tensor:
        """Return the entries of all levels (G, K, D)."""
        return torch.cat([level.table() for level in self.levels])

    def anchors(self, latents: Tensor) -> Tensor:
        """Return the residuals (B, N, G, D) that the levels quantize, if each level chooses the nearest entry."""
        residual, found = latents.float(), []
        for level in self.levels:
            found.append(level.anchors(residual))
            residual = residual - level.lookup(nearest(found[-1], level.table())[..., 0]).detach()
        return torch.cat(found, dim=2)


class MultiScaleVQ(Quantizer):
    """Quantizes a square map with one codebook at increasing resolution (VAR, arXiv:2404.02905, without convolutions).

    For each side s of `sides` the residual of the map is downsampled to s x s by area averaging, quantized, upsampled
    bicubically and added to the sum. N must be the last side squared. The indices are int64 (B, M, 1) with
    M = `positions` = the sum of s^2, coarsest scale first, each scale in row-major order; anchors are (B, M, 1, D). As
    in VAR, the loss is the mean over scales of the loss between the latents and the sum so far. G = 1. options: as for
    `VectorQuantizer`; entries are not normalised, and the codebook is updated once per batch from all scales.
    Raises ValueError unless `sides` increase, and in `forward` for another N.
    """

    groups = 1
    whitened = False
    positions: int

    def __init__(
        self, codebook_size: int, dim: int, sides: Sequence[int] = (1, 2, 4, 8), **options: Unpack[VQOptions]
    ) -> None:
        super().__init__()
        if list(sides) != sorted(set(sides)) or min(sides, default=0) < 1:
            raise ValueError(f"sides must be positive and increase, not {list(sides)}")
        self.codebook_size, self.dim, self.sides = codebook_size, dim, tuple(sides)
        self.positions = sum(side**2 for side in sides)
        self.vq = VectorQuantizer(codebook_size, dim, normalised=False, **options)

    @torch.no_grad()
    def start(self, latents: Tensor) -> None:
        """Set the codebook to k-means centres of the residuals of all scales, in `START_ROUNDS` rounds.

        latents: (M, D), of maps of the last side squared positions each. The residuals of a scale depend on the entries
        that the coarser scales chose, so each round clusters those of the codebook before; the first round takes
        residuals of the exact averages.
        """
        maps = latents.float().unflatten(0, (-1, self.sides[-1] ** 2))[: START_LATENTS // self.positions]
        anchors, total = [], torch.zeros_like(maps)
        for side in self.sides:
            anchors.append(self.resize(maps - total, side, "area"))
            total = total + self.upsample(anchors[-1])
        self.vq.start(torch.cat(anchors, dim=1).flatten(0, 1))
        for _ in range(START_ROUNDS - 1):
            self.vq.start(self.anchors(maps).flatten(0, 2))

    def forward(self, latents: Tensor) -> Quantized:
        """Quantize (B, N, D) to vectors (B, N, D) and indices (B, M, 1); the statistics cover all scales."""
        latents, table = latents.float(), self.table()
        anchors, indices, sums = zip(*self.scales(latents, table), strict=True)
        places, chosen = torch.cat(anchors, dim=1), torch.cat(indices, dim=1)
        losses = torch.stack([self.vq.match(latents, total) for total in sums])
        loss = losses.mean() + self.vq.spread(places, table)
        if self.training:
            self.vq.learn(places, chosen)
        return Quantized(self.vq.passed(latents, sums[-1]), chosen, loss, usage(chosen, self.codebook_size))

    def scales(self, latents: Tensor, table: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield for each side s: anchors (B, s^2, 1, D), indices (B, s^2, 1) and the sum so far (B, N, D)."""
        if latents.shape[1] != self.sides[-1] ** 2:
            raise ValueError(f"a {self.sides[-1]} x {self.sides[-1]} map does not have {latents.shape[1]} positions")
        total = torch.zeros_like(latents)
        for side in self.sides:
            anchors = self.resize(latents - total.detach(), side, "area")[:, :, None]
            indices = nearest(anchors, table)[..., 0]
            total = total + self.upsample(F.embedding(indices[..., 0], table[0]))
            yield anchors, indices, total

    def upsample(self, vectors: Tensor) -> Tensor:
        """Upsample a map (B, s^2, D) to full resolution (B, N, D)."""
        return self.resize(vectors, self.sides[-1], "bicubic")

    @staticmethod
    def resize(values: Tensor, side: int, mode: str) -> Tensor:
        """Resize a square map (B, n^2, D) to (B, side^2, D) with an interpolation `mode` of torch."""
        source = math.isqrt(values.shape[1])
        if source == side:
            return values
        grid = values.transpose(1, 2).unflatten(2, (source, source))
        return F.interpolate(grid, size=(side, side), mode=mode).flatten(2).transpose(1, 2)

    def lookup(self, indices: Tensor) -> Tensor:
        """Map int64 (B, M, 1) to vectors (B, N, D). Raises IndexError for a wrong index, ValueError for another M."""
        if indices.shape[1] != self.positions:
            raise ValueError(f"sides {self.sides} need {self.positions} indices, not {indices.shape[1]}")
        total = torch.zeros(len(indices), self.sides[-1] ** 2, self.dim, device=indices.device)
        for chosen in indices.split([side**2 for side in self.sides], dim=1):
            total = total + self.upsample(self.vq.lookup(chosen))
        return total

    def table(self) -> Tensor:
        """Return the entries (1, K, D)."""
        return self.vq.table()

    def anchors(self, latents: Tensor) -> Tensor:
        """Return the residuals (B, M, 1, D) that the scales quantize, if each position chooses the nearest entry."""
        return torch.cat([anchors for anchors, _, _ in self.scales(latents.float(), self.table())], dim=1)
