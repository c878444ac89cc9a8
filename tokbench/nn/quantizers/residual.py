"""Residual quantization: each level quantizes the residual of the earlier ones, at full or increasing resolution."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
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


class MultiScale(Quantizer, ABC):
    """Quantizes latents with one codebook at increasing resolution; subclasses define how latents are resized.

    The scale i has `lengths[i]` positions, the last one those of the latents. For each scale, the residual of the
    latents is downsampled, quantized, upsampled and added to the sum. The indices are int64 (B, M, 1) with M =
    `positions` = the sum of the lengths, coarsest scale first; anchors are (B, M, 1, D). As in VAR, the loss is the
    mean over scales of the loss between the latents and the sum so far. G = 1. options: as for `VectorQuantizer`;
    entries are not normalised, and the codebook is updated once per batch from all scales.
    Raises ValueError unless `lengths` increase, and in `forward` for another number of latents.
    """

    groups = 1
    whitened = False
    positions: int

    def __init__(
        self, codebook_size: int, dim: int, lengths: Sequence[int], *, used_from: float = 0.0,
        **options: Unpack[VQOptions],
    ) -> None:  # fmt: skip
        super().__init__()
        if list(lengths) != sorted(set(lengths)) or min(lengths, default=0) < 1:
            raise ValueError(f"the numbers of positions of the scales must be positive and increase, not {[*lengths]}")
        self.codebook_size, self.dim, self.lengths, self.used_from = codebook_size, dim, tuple(lengths), used_from
        self.positions = sum(lengths)
        self.vq = VectorQuantizer(codebook_size, dim, normalised=False, **options)

    @abstractmethod
    def downsample(self, latents: Tensor, length: int) -> Tensor:
        """Downsample latents (B, N, D) to (B, length, D)."""

    @abstractmethod
    def upsample(self, vectors: Tensor) -> Tensor:
        """Upsample vectors (B, n, D) of a scale to full resolution (B, N, D)."""

    @torch.no_grad()
    def start(self, latents: Tensor) -> None:
        """Set the codebook to k-means centres of the residuals of all scales, in `START_ROUNDS` rounds.

        latents: (M, D), of items of N positions each. The residuals of a scale depend on the entries that the coarser
        scales chose, so each round clusters those of the codebook before; the first round takes residuals of the exact
        averages.
        """
        items = latents.float().unflatten(0, (-1, self.lengths[-1]))[: START_LATENTS // self.positions]
        anchors, total = [], torch.zeros_like(items)
        for length in self.lengths:
            anchors.append(self.downsample(items - total, length))
            total = total + self.upsample(anchors[-1])
        self.vq.start(torch.cat(anchors, dim=1).flatten(0, 1))
        for _ in range(START_ROUNDS - 1):
            self.vq.start(self.anchors(items).flatten(0, 2))

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
        """Yield for each scale of n positions: anchors (B, n, 1, D), indices (B, n, 1) and the sum so far (B, N, D)."""
        if latents.shape[1] != self.lengths[-1]:
            raise ValueError(f"{latents.shape[1]} positions are not the {self.lengths[-1]} of the finest scale")
        total = torch.zeros_like(latents)
        for length in self.lengths:
            anchors = self.downsample(latents - total.detach(), length)[:, :, None]
            indices = nearest(anchors, table)[..., 0]
            total = total + self.upsample(F.embedding(indices[..., 0], table[0]))
            yield anchors, indices, total

    def lookup(self, indices: Tensor) -> Tensor:
        """Map int64 (B, M, 1) to vectors (B, N, D). Raises IndexError for a wrong index, ValueError for another M."""
        if indices.shape[1] != self.positions:
            raise ValueError(
                f"scales of {self.lengths} positions need {self.positions} indices, not {indices.shape[1]}"
            )
        return self.summed(self.vq.lookup(indices))

    def summed(self, vectors: Tensor) -> Tensor:
        """Return the sum of the upsampled scales (B, N, D) of the entries (B, M, D)."""
        parts = [self.upsample(part) for part in vectors.split(self.lengths, dim=1)]
        return sum(parts[1:], parts[0])

    def table(self) -> Tensor:
        """Return the entries (1, K, D)."""
        return self.vq.table()

    def anchors(self, latents: Tensor) -> Tensor:
        """Return the residuals (B, M, 1, D) that the scales quantize, if each position chooses the nearest entry."""
        return torch.cat([anchors for anchors, _, _ in self.scales(latents.float(), self.table())], dim=1)


class MultiScaleVQ(MultiScale):
    """Quantizes a square map with one codebook at increasing resolution (VAR, arXiv:2404.02905, without convolutions).

    A scale has s x s positions in row-major order for each side s of `sides`; N is the last side squared. Maps are
    downsampled by area averaging and upsampled bicubically. options: see `MultiScale`.
    """

    def __init__(
        self, codebook_size: int, dim: int, sides: Sequence[int] = (1, 2, 4, 8), **options: Unpack[VQOptions]
    ) -> None:
        super().__init__(codebook_size, dim, [side**2 for side in sides], **options)

    def downsample(self, latents: Tensor, length: int) -> Tensor:
        return self._resized(latents, length, "area")

    def upsample(self, vectors: Tensor) -> Tensor:
        return self._resized(vectors, self.lengths[-1], "bicubic")

    @staticmethod
    def _resized(values: Tensor, length: int, mode: str) -> Tensor:
        source, side = math.isqrt(values.shape[1]), math.isqrt(length)
        if source == side:
            return values
        grid = values.transpose(1, 2).unflatten(2, (source, source))
        return F.interpolate(grid, size=(side, side), mode=mode).flatten(2).transpose(1, 2)


class SequenceVQ(MultiScale):
    """Quantizes a sequence with one codebook at increasing resolution, as VAR does maps (arXiv:2404.02905).

    Sequences are downsampled by averages of neighbours and upsampled linearly. The first k indices have vectors of
    their own: entries that are missing add 0. options: see `MultiScale`.
    """

    def downsample(self, latents: Tensor, length: int) -> Tensor:
        return F.adaptive_avg_pool1d(latents.transpose(1, 2), length).transpose(1, 2)

    def upsample(self, vectors: Tensor) -> Tensor:
        return F.interpolate(vectors.transpose(1, 2), size=self.lengths[-1], mode="linear").transpose(1, 2)

    def lookup(self, indices: Tensor) -> Tensor:
        """Map the first k indices, int64 (B, k, 1), to vectors (B, N, D). Raises IndexError for a wrong index,
        ValueError for more than M indices."""
        missing = self.positions - indices.shape[1]
        if missing < 0:
            raise ValueError(
                f"scales of {self.lengths} positions have {self.positions} indices, not {indices.shape[1]}"
            )
        return self.summed(F.pad(self.vq.lookup(indices), (0, 0, 0, missing)))
