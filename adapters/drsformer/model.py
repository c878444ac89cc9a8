"""The network: two levels of sparse channel attention, which predict what separates the input from the clean image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.data.degrade import degrade
from tokbench.nn.channel_attention import TopKChannelAttention
from tokbench.nn.trainable import Trainable, TrainingBatch
from tokbench.protocol.degradation import Degradation


class LayerNorm(nn.Module):
    """Layer norm over the channels of features (B, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def depthwise(inputs: int, outputs: int, side: int, dilation: int = 1, groups: int | None = None) -> nn.Conv2d:
    """Return a convolution of `side` x `side` within groups, each channel alone by default, that keeps the size."""
    padding = dilation * (side // 2)
    return nn.Conv2d(inputs, outputs, side, 1, padding, dilation, groups or inputs, bias=False)


class MixedScaleFeedForward(nn.Module):
    """A feed-forward network of two scales (MSFN): depthwise 3x3 and 5x5 branches that exchange half of their channels.

    Features (B, C, H, W) to the same; the branches have `ratio` times as many channels.
    """

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        hidden = int(width * ratio)
        self.expand = nn.Conv2d(width, 2 * hidden, 1, bias=False)
        self.first = nn.ModuleList(depthwise(2 * hidden, 2 * hidden, side) for side in (3, 5))
        self.second = nn.ModuleList(depthwise(2 * hidden, hidden, side, groups=hidden) for side in (3, 5))
        self.out = nn.Conv2d(2 * hidden, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.expand(x)
        small, large = (F.relu(branch(wide)).chunk(2, 1) for branch in self.first)
        exchanged = (torch.cat([small[place], large[place]], 1) for place in range(2))
        return self.out(torch.cat([F.relu(f(x)) for f, x in zip(self.second, exchanged, strict=True)], 1))


class Experts(nn.Module):
    """A mixture of eight operations on features (B, C, H, W), weighted by the mean of each image (MEFC), residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = [(side, 1) for side in (1, 3, 5, 7)] + [(side, 2) for side in (3, 5, 7)]
        self.local = nn.ModuleList(depthwise(width, width, side, dilation) for side, dilation in sizes)
        self.points = nn.ModuleList(nn.Conv2d(width, width, 1, bias=False) for _ in sizes)
        self.gate = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, len(sizes) + 1))
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.gate(x.mean((2, 3))).softmax(-1)[:, :, None, None, None]
        pairs = zip(self.local, self.points, strict=True)
        found = [F.relu(point(local(x))) for local, point in pairs] + [
            F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        ]
        mixed = torch.stack(found, 1)
        return x + self.out((weights * mixed).sum(1))


class Block(nn.Module):
    """A block of channel attention and a feed-forward network, each with a norm and residual."""

    def __init__(self, width: int, heads: int, shares: Sequence[float], ratio: float) -> None:
        super().__init__()
        self.norm, self.attention = LayerNorm(width), TopKChannelAttention(width, heads, shares)
        self.norm_mlp, self.mlp = LayerNorm(width), MixedScaleFeedForward(width, ratio)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm(x))
        return x + self.mlp(self.norm_mlp(x))


class DRSformer(Trainable):
    """A restoration network of two levels (arXiv:2303.11950, four levels); images (B, 3, H, W) in [0, 1] to the same.

    Height and width must be even. width: channels at full resolution; half the resolution has twice as many. blocks:
    number of blocks before, at and after the lower level. shares: see `TopKChannelAttention`. degradations: those that
    training images get, one for each image at random. crop: side of the random squares that are then cut from them, in
    pixels. experts: whether `Experts` precede and follow the blocks.
    """

    def __init__(
        self,
        width: int,
        blocks: tuple[int, int, int],
        shares: Sequence[float],
        degradations: Sequence[str],
        crop: int,
        ratio: float = 2.66,
        experts: bool = True,
    ) -> None:
        """Raises UsageError for an unknown degradation, ValueError for shares outside (0, 1]."""
        super().__init__()
        self.crop = crop
        self.degradations = [Degradation.parse(text) for text in degradations]

        def stack(count: int, level: int) -> nn.Sequential:
            return nn.Sequential(*(Block(level * width, level, shares, ratio) for _ in range(count)))

        self.embed = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.experts_in = Experts(width) if experts else nn.Identity()
        self.encoder, self.lower, self.decoder = stack(blocks[0], 1), stack(blocks[1], 2), stack(blocks[2], 1)
        self.down = nn.Sequential(nn.Conv2d(width, width // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))
        self.up = nn.Sequential(nn.Conv2d(2 * width, 4 * width, 1, bias=False), nn.PixelShuffle(2))
        self.reduce = nn.Conv2d(2 * width, width, 1, bias=False)
        self.experts_out = Experts(width) if experts else nn.Identity()
        self.out = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.zeros_(self.out.weight)  # the untrained network returns its input
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        features = self.encoder(self.experts_in(self.embed(images)))
        below = self.up(self.lower(self.down(features)))
        features = self.decoder(self.reduce(torch.cat([below, features], 1)))
        return images + self.out(self.experts_out(features))

    def degraded(self, images: Tensor) -> Tensor:
        """Return images (B, 3, H, W) in [0, 1], each with one of the degradations at random."""
        levels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        kinds = torch.randint(len(self.degradations), (len(images),)).tolist()
        damaged = [
            torch.from_numpy(degrade(one, self.degradations[kind])) for one, kind in zip(levels, kinds, strict=True)
        ]
        return torch.stack(damaged).permute(0, 3, 1, 2).to(images.device).float() / 255

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        clean = batch.images / 2 + 0.5
        damaged = self.degraded(clean)
        top, left = (int(torch.randint(max(1, side - self.crop + 1), ())) for side in clean.shape[2:])
        cut = ..., slice(top, top + self.crop), slice(left, left + self.crop)
        return {"l1": (self(damaged[cut]).float() - clean[cut]).abs().mean()}
