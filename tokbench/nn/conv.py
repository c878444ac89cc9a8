"""Convolutional encoder and decoder, a small version of VQGAN's (arXiv:2012.09841)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (48, 80, 128)


class Residual(nn.Module):
    """A residual block of two 3x3 convolutions, each preceded by group norm and SiLU; (B, width, h, w) to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        last = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(last.weight)  # the block starts as the identity, so deep stacks need no warm-up
        self.body = nn.Sequential(
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width), nn.SiLU(), last,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def downsampling(widths: Sequence[int], stem: int) -> int:
    """Return the side in px of the square that one latent of `ConvEncoder` covers."""
    return stem * 2 ** (len(widths) - 1)


class ConvEncoder(nn.Module):
    """Maps images (B, 3, H, W) to (B, out, H / 8, W / 8) with the default widths and stem.

    The first stage reduces both sides by `stem`, each further width halves them. stem: 2 for a strided convolution;
    with a larger stem, blocks of `stem` x `stem` px become channels (space-to-depth), which saves the stages of high
    resolution, where most of the time is spent.
    """

    def __init__(self, out: int, widths: Sequence[int] = WIDTHS, stem: int = 2) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 2, padding=1)]
        if stem > 2:
            layers = [nn.PixelUnshuffle(stem), nn.Conv2d(3 * stem**2, widths[0], 3, padding=1)]
        layers.append(Residual(widths[0]))
        for before, width in pairwise(widths):
            layers += [nn.Conv2d(before, width, 4, 2, padding=1), Residual(width)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.GroupNorm(8, widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], out, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


class ConvDecoder(nn.Module):
    """Maps latents (B, dim, h, w) to images (B, 3, 8 h, 8 w) with the default widths and stem."""

    def __init__(self, dim: int, widths: Sequence[int] = WIDTHS, stem: int = 2) -> None:
        super().__init__()
        self.stem = stem
        widths = widths[::-1]
        layers: list[nn.Module] = [nn.Conv2d(dim, widths[0], 3, padding=1), Residual(widths[0]), Residual(widths[0])]
        for before, width in pairwise(widths):
            layers += [Upsample(before, width), Residual(width)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.GroupNorm(8, widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], 3 * stem**2, 3, padding=1)
        )

    def forward(self, latents: Tensor) -> Tensor:
        return F.pixel_shuffle(self.head(self.body(latents)), self.stem)


class Upsample(nn.Module):
    """Doubles both sides by nearest-neighbour interpolation and a convolution, which avoids checkerboard artefacts."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


def channels_last(grid: Tensor) -> Tensor:
    """Move the channels of (B, D, h, w) to the end: (B, h, w, D)."""
    return grid.permute(0, 2, 3, 1)


def channels_first(values: Tensor) -> Tensor:
    """Move the channels of (B, h, w, D) to the front: (B, D, h, w)."""
    return values.permute(0, 3, 1, 2)
