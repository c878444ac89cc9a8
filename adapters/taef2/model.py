"""TAEF2's networks, which follow the layout of the published weights (madebyollin/taesd, MIT, commit 5cccb12).

Images are (B, 3, H, W) in [0, 1], latents (B, 32, H / 8, W / 8) with values of about -3 to 3. Modules are numbered as
in the published keys: `1.conv.0.weight` is the first convolution of the residual block at position 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH = 64
LATENTS = 32
_REACH = 3.0  # latents are limited smoothly to this magnitude before decoding
_NORM_GROUPS = 4


class SoftClamp(nn.Module):
    """Limits values smoothly to (-3, 3)."""

    def forward(self, x: Tensor) -> Tensor:
        return _REACH * torch.tanh(x / _REACH)


class Residual(nn.Module):
    """A residual block, relu(x + three convolutions of x), (B, 64, h, w) to the same shape.

    pooled: whether a branch with group norm over the whole image is added to x first. FLUX.2's encoder has such norms,
    which a purely local network cannot imitate.
    """

    def __init__(self, pooled: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(WIDTH), nn.ReLU(), _conv(WIDTH), nn.ReLU(), _conv(WIDTH))
        self.pool = None
        if pooled:
            wide = 4 * WIDTH
            self.pool = nn.Sequential(
                nn.Conv2d(WIDTH, wide, 1, bias=False),
                nn.GroupNorm(_NORM_GROUPS, wide),
                nn.ReLU(),
                nn.Conv2d(wide, WIDTH, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(x + self.conv(x))


def _conv(channels_in: int, channels_out: int = WIDTH, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=bias)


def _stage(blocks: int, pooled: bool = False) -> list[nn.Module]:
    return [Residual(pooled) for _ in range(blocks)]


def encoder() -> nn.Sequential:
    """Build the encoder: (B, 3, H, W) in [0, 1] to latents (B, 32, H / 8, W / 8), with three stride-2 stages."""
    layers: list[nn.Module] = [_conv(3), *_stage(1)]
    for pooled in (False, False, True):
        layers += [_conv(WIDTH, stride=2, bias=False), *_stage(3, pooled)]
    return nn.Sequential(*layers, _conv(WIDTH, LATENTS))


def decoder() -> nn.Sequential:
    """Build the decoder: latents (B, 32, h, w) to images (B, 3, 8 h, 8 w) of about [0, 1], with three upsamplings."""
    layers: list[nn.Module] = [SoftClamp(), _conv(LATENTS), nn.ReLU()]
    for pooled in (True, False, False):
        layers += [*_stage(3, pooled), nn.Upsample(scale_factor=2), _conv(WIDTH, bias=False)]
    return nn.Sequential(*layers, *_stage(1), _conv(WIDTH, 3))
