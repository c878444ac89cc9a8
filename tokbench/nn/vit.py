"""Transformers over patches: encoders to a grid or to a row of latents, and the decoders back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """Images of `size` x `size` px in patches of `patch` px; `depth` blocks `width` wide."""

    size: int = 64
    patch: int = 8
    width: int = 128
    depth: int = 4
    heads: int = 4

    @property
    def side(self) -> int:
        return self.size // self.patch

    @property
    def patches(self) -> int:
        return self.side**2


@dataclass
class Past:
    """Keys and values (B, heads, N, d) of the positions that one layer of attention has seen."""

    key: Tensor | None = None
    value: Tensor | None = None

    def joined(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """All so far, with those of the positions at hand."""
        if self.key is not None and self.value is not None:
            key, value = torch.cat([self.key, key], 2), torch.cat([self.value, value], 2)
        self.key, self.value = key, value
        return key, value


class Attention(nn.Module):
    """Multi-head attention of `x` (B, N, D) to itself, or to `context` (B, M, D); with a `past`, also to the positions
    before."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key_value, self.out = (nn.Linear(width, n * width) for n in (1, 2, 1))

    def forward(
        self, x: Tensor, mask: Tensor | None = None, context: Tensor | None = None, past: Past | None = None
    ) -> Tensor:
        query = self.query(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        both = self.key_value(x if context is None else context).unflatten(2, (2, self.heads, -1))
        key, value = both.permute(2, 0, 3, 1, 4)
        if past is not None:
            key, value = past.joined(key, value)
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(found.transpose(1, 2).flatten(2))


def mlp(width: int, ratio: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width))


class Block(nn.Module):
    """Attention, then an MLP, each after a norm and added to its input; `cross` looks at a context in between."""

    def __init__(self, width: int, heads: int, cross: bool = False) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), Attention(width, heads)
        if cross:
            self.norm_cross, self.cross = nn.LayerNorm(width), Attention(width, heads)
        self.norm_mlp, self.mlp = nn.LayerNorm(width), mlp(width)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, context: Tensor | None = None, past: Past | None = None
    ) -> Tensor:
        x = x + self.attention(self.norm(x), mask, past=past)
        if context is not None:
            x = x + self.cross(self.norm_cross(x), context=context)
        return x + self.mlp(self.norm_mlp(x))


class Transformer(nn.Module):
    """`depth` blocks and a last norm over (B, N, D). `mask` as in `tokbench.nn.masks`, or (B, 1, N, N). `pasts`: one a
    block, where positions come one after the other."""

    def __init__(self, width: int, depth: int, heads: int, cross: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, cross) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.apply(initialise)
        with torch.no_grad():
            for name, weight in self.named_parameters():  # of what a block adds to its input
                if name.endswith(("attention.out.weight", "cross.out.weight", "mlp.2.weight")):
                    weight.mul_(ADDED)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        context: Tensor | None = None,
        pasts: Sequence[Past | None] | None = None,
    ) -> Tensor:
        for block, past in zip(self.blocks, pasts or [None] * len(self.blocks), strict=True):
            x = block(x, mask, context, past)
        return self.norm(x)


ADDED = 0.2
"""Of the size of other weights, at first, are those of what a block adds to its input."""


def initialise(module: nn.Module) -> None:
    """Weights of linear layers uniform as Glorot and Bengio's, biases zero. ViT's deviation of 0.02 is for widths of
    768 and more: at 128 all attention is even for long, and a row of queries finds nothing in few steps."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def placed(side: int, width: int, of: int | None = None) -> nn.Parameter:
    """A learned vector for each cell of a grid, row by row (side^2, width), at first waves of its place.

    of: side of a finer grid in whose cells places are measured, for grids over the same image.
    """
    step = (of or side) / side
    centres = (torch.arange(side) + 0.5) * step - 0.5
    angles = centres[:, None] / 100 ** (torch.arange(width // 4) / (width // 4))
    line = torch.cat([angles.sin(), angles.cos()], 1)
    rows, columns = line[:, None].expand(-1, side, -1), line[None].expand(side, -1, -1)
    return nn.Parameter(0.5 * torch.cat([rows, columns], 2).flatten(0, 1))


def learned(*shape: int) -> nn.Parameter:
    """A learned vector for each place, small at first."""
    return nn.Parameter(torch.randn(*shape) * 0.02)


class Patches(nn.Module):
    """Images (B, 3, H, W) to patch embeddings with positions (B, N, D), row by row."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, shape.width, shape.patch, shape.patch)
        self.positions = placed(shape.side, shape.width)

    def forward(self, images: Tensor) -> Tensor:
        return self.embed(images).flatten(2).transpose(1, 2) + self.positions


class Places(nn.Module):
    """Latents (B, N, C) that another network has made of patches, embedded like patches: (B, N, D) with positions."""

    def __init__(self, channels: int, shape: Shape) -> None:
        super().__init__()
        self.embed = nn.Linear(channels, shape.width)
        self.positions = placed(shape.side, shape.width)

    def forward(self, latents: Tensor) -> Tensor:
        return self.embed(latents) + self.positions


class Pixels(nn.Module):
    """Features (B, N, D), row by row, to images: a linear map a patch, then a convolution over the seams."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.linear = nn.Linear(shape.width, 3 * shape.patch**2)
        self.smooth = nn.Conv2d(3, 3, 3, padding=1)
        with torch.no_grad():  # at first the patches as they are
            nn.init.dirac_(self.smooth.weight)
            nn.init.zeros_(self.smooth.bias)  # type: ignore[arg-type]
        nn.init.trunc_normal_(self.linear.weight, std=0.02, a=-0.04, b=0.04)  # and those nearly grey
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        side = self.shape.side
        grid = self.linear(features).transpose(1, 2).unflatten(2, (side, side))
        return self.smooth(F.pixel_shuffle(grid, self.shape.patch))


class GridEncoder(nn.Module):
    """Images to a latent a patch, (B, N, out)."""

    def __init__(self, shape: Shape, out: int) -> None:
        super().__init__()
        self.patches = Patches(shape)
        self.body = Transformer(shape.width, shape.depth, shape.heads)
        self.head = nn.Linear(shape.width, out)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(self.patches(images)))


class GridDecoder(nn.Module):
    """A latent a patch (B, N, D) to images."""

    def __init__(self, shape: Shape, dim: int) -> None:
        super().__init__()
        self.places = Places(dim, shape)
        self.body = Transformer(shape.width, shape.depth, shape.heads)
        self.pixels = Pixels(shape)

    def forward(self, latents: Tensor) -> Tensor:
        return self.pixels(self.body(self.places(latents)))


class QueryEncoder(nn.Module):
    """Images to a row of `count` latents (B, count, out): learned queries among the patches, of which only they stay
    (TiTok, arXiv:2406.07550).

    `mask` over patches and then queries. `patches`: what makes patches (B, N, D) of the input, where not images go in.
    `context` (B, M, D) is looked at, too.
    """

    mask: Tensor | None

    def __init__(
        self, shape: Shape, count: int, out: int, mask: Tensor | None = None, patches: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.patches = patches or Patches(shape)
        self.queries = learned(count, shape.width)
        self.body = Transformer(shape.width, shape.depth, shape.heads)
        self.head = nn.Linear(shape.width, out)
        self.register_buffer("mask", mask, persistent=False)

    def features(self, images: Tensor, context: Tensor | None = None, count: int | None = None) -> Tensor:
        """What the first `count` queries (all of them) have found, (B, count, width).

        Raises ValueError for a context where there is a mask, which does not know it.
        """
        patches, queries = self.patches(images), self.queries[:count]
        parts = [patches, queries.expand(len(images), -1, -1), *([] if context is None else [context])]
        mask = self.mask
        if mask is not None:
            if context is not None:
                raise ValueError("a mask over patches and queries does not say who sees the context")
            length = patches.shape[1] + len(queries)
            mask = mask[:length, :length]
        seen = self.body(torch.cat(parts, 1), mask)
        return seen[:, patches.shape[1] : patches.shape[1] + len(queries)]

    def forward(self, images: Tensor, context: Tensor | None = None) -> Tensor:
        return self.head(self.features(images, context))


class MaskDecoder(nn.Module):
    """The first k of `count` latents (B, k, D) to features of the patches (B, N, width): the same learned mask token in
    every place, told apart by positions, among the latents (TiTok). `keep` (B, k): latents that no other token sees
    where it is False."""

    def __init__(self, shape: Shape, count: int, dim: int) -> None:
        super().__init__()
        self.embed = nn.Linear(dim, shape.width)
        self.places = learned(count, shape.width)
        self.mask_token = learned(1, shape.width)
        self.positions = placed(shape.side, shape.width)
        self.body = Transformer(shape.width, shape.depth, shape.heads)

    def forward(self, latents: Tensor, keep: Tensor | None = None) -> Tensor:
        known = self.embed(latents) + self.places[: latents.shape[1]]
        asked = (self.mask_token + self.positions).expand(len(latents), -1, -1)
        mask = None
        if keep is not None:
            seen = torch.cat([keep, keep.new_ones(len(keep), asked.shape[1])], 1)
            own = torch.eye(seen.shape[1], dtype=torch.bool, device=seen.device)  # a row that sees nothing would be NaN
            mask = (seen[:, None, :] | own)[:, None]
        return self.body(torch.cat([known, asked], 1), mask)[:, latents.shape[1] :]
