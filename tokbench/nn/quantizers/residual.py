"""Residual quantization: each codebook quantizes what those before it left, at full or at growing resolution."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Unpack, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.quantizers.quantizer import Quantized, Quantizer, nearest, usage
from tokbench.nn.quantizers.vq import VectorQuantizer, VQOptions


class ResidualVQ(Quantizer):
    """The sum of G = `levels` entries, one of each level's codebook (SoundStream, 2107.03312; RQ-VAE, 2203.01941).

    Entries are not normalised: what is left after some levels has any length. The loss is the sum over levels.
    dropout: the share of training batches in which only the first 1 to `levels` levels, a uniform draw from torch's
    global generator, are used and learn; the indices of the others are -1 then, and `lookup` leaves them out.
    Each level takes the other options of `VectorQuantizer`.
    """

    def __init__(
        self, levels: int, codebook_size: int, dim: int, *, dropout: float = 0.0, **options: Unpack[VQOptions]
    ) -> None:
        super().__init__()
        self.groups, self.codebook_size, self.dim, self.dropout = levels, codebook_size, dim, dropout
        made = nn.ModuleList(VectorQuantizer(codebook_size, dim, normalised=False, **options) for _ in range(levels))
        self.levels = cast("Sequence[VectorQuantizer]", made)  # torch types its lists as of any module

    def forward(self, latents: Tensor) -> Quantized:
        """(B, N, D); statistics `perplexity` and `used` of this batch, means over the levels in use."""
        rest = latents = latents.float()
        total, loss = torch.zeros_like(rest), rest.new_zeros(())
        chosen = []
        for level in self.levels[: self.kept()]:
            part = level(rest)
            vectors = part.vectors.detach()  # one gradient, of the sum: passed on by every level it would add up
            rest, total, loss = rest - vectors, total + vectors, loss + part.loss
            chosen.append(part.indices)
        indices = torch.cat(chosen, dim=-1)
        statistics = usage(indices, self.codebook_size)
        indices = F.pad(indices, (0, self.groups - len(chosen)), value=-1)
        return Quantized(self.levels[0].passed(latents, total), indices, loss, statistics)

    def kept(self) -> int:
        """How many levels this batch uses."""
        if self.training and self.dropout and float(torch.rand(())) < self.dropout:
            return int(torch.randint(1, self.groups + 1, ()))
        return self.groups

    def lookup(self, indices: Tensor) -> Tensor:
        """int64 (B, N, G) to vectors (B, N, D); -1 adds nothing. Raises IndexError for others outside a codebook."""
        total = torch.zeros(*indices.shape[:2], self.dim, device=indices.device)
        for level, chosen in zip(self.levels, indices.split(1, dim=-1), strict=True):
            left_out = chosen == -1
            total = total + level.lookup(chosen.masked_fill(left_out, 0)).masked_fill(left_out, 0)
        return total

    def table(self) -> Tensor:
        """(G, K, D)."""
        return torch.cat([level.table() for level in self.levels])

    def anchors(self, latents: Tensor) -> Tensor:
        """(B, N, D) to (B, N, G, D): what each level finds when those before it chose their nearest entries."""
        rest, found = latents.float(), []
        for level in self.levels:
            found.append(level.anchors(rest))
            rest = rest - level.lookup(nearest(found[-1], level.table())[..., 0]).detach()
        return torch.cat(found, dim=2)


class MultiScaleVQ(Quantizer):
    """A square map as entries of one codebook at growing resolution (VAR, 2404.02905, without its convolutions).

    For each side s of `sides`: what is left of the map is shrunk to s x s by areas, quantized, enlarged bicubically,
    and added up. N must be the last side squared. There are fewer or more indices than latents: int64 (B, M, 1) with
    M = `positions` = the sum of s^2, coarsest scale first, each scale row by row; anchors are (B, M, 1, D). The loss
    is the mean over scales of that between the latents and the sum so far, as VAR's. G = 1. The codebook takes the
    options of `VectorQuantizer`, is not normalised, and learns once a batch, from all scales.
    Raises ValueError where `sides` do not grow, and for another N.
    """

    groups = 1

    def __init__(
        self, codebook_size: int, dim: int, sides: Sequence[int] = (1, 2, 4, 8), **options: Unpack[VQOptions]
    ) -> None:
        super().__init__()
        if list(sides) != sorted(set(sides)) or min(sides, default=0) < 1:
            raise ValueError(f"sides must be positive and grow, they are {list(sides)}")
        self.codebook_size, self.dim, self.sides = codebook_size, dim, tuple(sides)
        self.positions = sum(side**2 for side in sides)
        self.vq = VectorQuantizer(codebook_size, dim, normalised=False, **options)

    def forward(self, latents: Tensor) -> Quantized:
        """(B, N, D) to vectors (B, N, D) and indices (B, M, 1); statistics `perplexity` and `used` over all scales."""
        latents, table = latents.float(), self.table()
        anchors, indices, sums = zip(*self.scales(latents, table), strict=True)
        places, chosen = torch.cat(anchors, dim=1), torch.cat(indices, dim=1)
        losses = torch.stack([self.vq.match(latents, total) for total in sums])
        loss = losses.mean() + self.vq.spread(places, table)
        if self.training:
            self.vq.learn(places, chosen)
        return Quantized(self.vq.passed(latents, sums[-1]), chosen, loss, usage(chosen, self.codebook_size))

    def scales(self, latents: Tensor, table: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Of each side s: anchors (B, s^2, 1, D), indices (B, s^2, 1), and the sum so far (B, N, D)."""
        if latents.shape[1] != self.sides[-1] ** 2:
            raise ValueError(f"{latents.shape[1]} positions are not a map of {self.sides[-1]} x {self.sides[-1]}")
        total = torch.zeros_like(latents)
        for side in self.sides:
            anchors = self.resized(latents - total.detach(), side, "area")[:, :, None]
            indices = nearest(anchors, table)[..., 0]
            total = total + self.enlarged(F.embedding(indices[..., 0], table[0]))
            yield anchors, indices, total

    def enlarged(self, vectors: Tensor) -> Tensor:
        """(B, s^2, D) to (B, N, D)."""
        return self.resized(vectors, self.sides[-1], "bicubic")

    @staticmethod
    def resized(values: Tensor, side: int, mode: str) -> Tensor:
        """A square map (B, n^2, D) to (B, side^2, D)."""
        now = math.isqrt(values.shape[1])
        if now == side:
            return values
        grid = values.transpose(1, 2).unflatten(2, (now, now))
        return F.interpolate(grid, size=(side, side), mode=mode).flatten(2).transpose(1, 2)

    def lookup(self, indices: Tensor) -> Tensor:
        """int64 (B, M, 1) to vectors (B, N, D). Raises IndexError outside the codebook, ValueError for another M."""
        if indices.shape[1] != self.positions:
            raise ValueError(f"sides {self.sides} have {self.positions} indices, not {indices.shape[1]}")
        total = torch.zeros(len(indices), self.sides[-1] ** 2, self.dim, device=indices.device)
        for chosen in indices.split([side**2 for side in self.sides], dim=1):
            total = total + self.enlarged(self.vq.lookup(chosen))
        return total

    def table(self) -> Tensor:
        """(1, K, D)."""
        return self.vq.table()

    def anchors(self, latents: Tensor) -> Tensor:
        """(B, N, D) to (B, M, 1, D): what each scale finds when those before it chose their nearest entries."""
        return torch.cat([anchors for anchors, _, _ in self.scales(latents.float(), self.table())], dim=1)
