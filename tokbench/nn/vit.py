"""Vision transformers: encoders of images to a grid or a sequence of latents, and the matching decoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """Sizes of a vision transformer: images of `size` x `size` px, patches of `patch` px, `depth` blocks of `width`."""

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
    """Key-value cache of one attention layer: keys and values (B, heads, N, d) of all earlier positions."""

    key: Tensor | None = None
    value: Tensor | None = None

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values (B, heads, M, d) of new positions; return those of all positions so far."""
        if self.key is not None and self.value is not None:
            key, value = torch.cat([self.key, key], 2), torch.cat([self.value, value], 2)
        self.key, self.value = key, value
        return key, value


class Attention(nn.Module):
    """Multi-head attention of `x` (B, N, D) to itself or to `context` (B, M, D); returns (B, N, D).

    mask: bool, broadcastable to (B, heads, N, M). past: cache of the earlier positions, which are attended to as well.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key_value, self.out = (nn.Linear(width, n * width) for n in (1, 2, 1))

    def forward(
        self, x: Tensor, mask: Tensor | None = None, context: Tensor | None = None, past: Past | None = None
    ) -> Tensor:
        query = self.query(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        projected = self.key_value(x if context is None else context).unflatten(2, (2, self.heads, -1))
        key, value = projected.permute(2, 0, 3, 1, 4)
        if past is not None:
            key, value = past.append(key, value)
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(found.transpose(1, 2).flatten(2))


def mlp(width: int, ratio: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width))


class Block(nn.Module):
    """A pre-norm transformer block: residual self-attention and residual MLP.

    cross: whether there is cross-attention to a `context` (B, M, D) between the two.
    """

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
    """A transformer of `depth` blocks with a final norm; (B, N, D) to (B, N, D).

    mask: (N, N) as in `tokbench.nn.masks`, or (B, 1, N, N). pasts: one cache per block, for decoding position by
    position.
    """

    def __init__(self, width: int, depth: int, heads: int, cross: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, cross) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.apply(initialise)
        with torch.no_grad():
            for name, weight in self.named_parameters():  # last layers of the residual branches
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
"""Factor on the initial weights of the last layer of each residual branch."""


def initialise(module: nn.Module) -> None:
    """Initialise a linear layer: weights by Glorot's uniform distribution, biases with 0; for `nn.Module.apply`.

    ViT's standard deviation of 0.02 suits widths of 768 and more. At width 128 it keeps the attention nearly uniform
    for many steps, so learned queries receive no information in a short training.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def sincos_positions(side: int, width: int, of: int | None = None) -> nn.Parameter:
    """Return learned position embeddings (side^2, width) of a square grid in row-major order.

    They are initialised with sines and cosines of the row and of the column. of: the side of a finer grid over the same
    image, in whose cells coordinates are measured; None for this grid's own.
    """
    step = (of or side) / side
    centres = (torch.arange(side) + 0.5) * step - 0.5
    angles = centres[:, None] / 100 ** (torch.arange(width // 4) / (width // 4))
    line = torch.cat([angles.sin(), angles.cos()], 1)
    rows, columns = line[:, None].expand(-1, side, -1), line[None].expand(side, -1, -1)
    return nn.Parameter(0.5 * torch.cat([rows, columns], 2).flatten(0, 1))


def random_parameter(*shape: int) -> nn.Parameter:
    """Return a parameter of the given shape, initialised from N(0, 0.02^2)."""
    return nn.Parameter(torch.randn(*shape) * 0.02)


class Patches(nn.Module):
    """Patch embedding: images (B, 3, H, W) to patch features with positions (B, N, D), in row-major order."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, shape.width, shape.patch, shape.patch)
        self.positions = sincos_positions(shape.side, shape.width)

    def forward(self, images: Tensor) -> Tensor:
        return self.embed(images).flatten(2).transpose(1, 2) + self.positions


class Places(nn.Module):
    """Embedding of a grid of latents (B, N, C), in row-major order, to features with positions (B, N, D)."""

    def __init__(self, channels: int, shape: Shape) -> None:
        super().__init__()
        self.embed = nn.Linear(channels, shape.width)
        self.positions = sincos_positions(shape.side, shape.width)

    def forward(self, latents: Tensor) -> Tensor:
        return self.embed(latents) + self.positions


class Pixels(nn.Module):
    """Maps features (B, N, D) in row-major order to images (B, 3, H, W): a linear map per patch and a 3x3 convolution.

    The convolution can smooth the borders between patches.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.linear = nn.Linear(shape.width, 3 * shape.patch**2)
        self.smooth = nn.Conv2d(3, 3, 3, padding=1)
        with torch.no_grad():  # the convolution starts as the identity
            nn.init.dirac_(self.smooth.weight)
            nn.init.zeros_(self.smooth.bias)  # type: ignore[arg-type]
        nn.init.trunc_normal_(self.linear.weight, std=0.02, a=-0.04, b=0.04)  # the first images are nearly grey
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        side = self.shape.side
        grid = self.linear(features).transpose(1, 2).unflatten(2, (side, side))
        return self.smooth(F.pixel_shuffle(grid, self.shape.patch))


class GridEncoder(nn.Module):
    """Encodes images (B, 3, H, W) to one latent per patch, (B, N, out)."""

    def __init__(self, shape: Shape, out: int) -> None:
        super().__init__()
        self.patches = Patches(shape)
        self.body = Transformer(shape.width, shape.depth, shape.heads)
        self.head = nn.Linear(shape.width, out)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(self.patches(images)))


class GridDecoder(nn.Module):
    """Decodes one latent per patch, (B, N, D), to images (B, 3, H, W)."""

    def __init__(self, shape: Shape, dim: int) -> None:
        super().__init__()
        self.places = Places(dim, shape)
        self.body = Transformer(shape.width, shape.depth, shape.heads)
        self.pixels = Pixels(shape)

    def forward(self, latents: Tensor) -> Tensor:
        return self.pixels(self.body(self.places(latents)))


class QueryEncoder(nn.Module):
    """Encodes images to a sequence of `count` latents (B, count, out) (TiTok, arXiv:2406.07550).

    Learned queries are concatenated with the patches, and only the queries' features are kept. mask: attention mask
    over patches and then queries. patches: module that embeds the input to (B, N, D), if the input is not images. A
    `context` (B, M, D), if given, is concatenated as well.
    """

    mask: Tensor | None

    def __init__(
        self, shape: Shape, count: int, out: int, mask: Tensor | None = None, patches: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.patches = patches or Patches(shape)
        self.queries = random_parameter(count, shape.width)
        self.body = Transformer(shape.width, shape.depth, shape.heads)
        self.head = nn.Linear(shape.width, out)
        self.register_buffer("mask", mask, persistent=False)

    def features(self, images: Tensor, context: Tensor | None = None, count: int | None = None) -> Tensor:
        """Return the features (B, count, width) of the first `count` queries, by default of all.

        Raises ValueError if there is both a context and a mask, since the mask does not cover the context.
        """
        return self.read(self.patches(images), context, count)

    def read(self, patches: Tensor, context: Tensor | None = None, count: int | None = None) -> Tensor:
        """Return the features of the queries, as `features`, for embedded patches (B, N, width)."""
        queries = self.queries[:count]
        parts = [patches, queries.expand(len(patches), -1, -1), *([] if context is None else [context])]
        mask = self.mask
        if mask is not None:
            if context is not None:
                raise ValueError("the mask covers patches and queries only, so a context cannot be used with it")
            length = patches.shape[1] + len(queries)
            mask = mask[:length, :length]
        features = self.body(torch.cat(parts, 1), mask)
        return features[:, patches.shape[1] : patches.shape[1] + len(queries)]

    def forward(self, images: Tensor, context: Tensor | None = None) -> Tensor:
        return self.head(self.features(images, context))


class MaskDecoder(nn.Module):
    """Decodes the first k of `count` latents (B, k, D) to patch features (B, N, width) (TiTok, arXiv:2406.07550).

    One learned mask token with the position of each patch is concatenated with the latents. No other token attends to
    latents where `keep` (B, k) is False. A `context` (B, M, width), if given, is concatenated as well. positions:
    embeddings (N, width) of the positions, if these are not the patches of an image.
    """

    def __init__(self, shape: Shape, count: int, dim: int, positions: nn.Parameter | None = None) -> None:
        super().__init__()
        self.embed = nn.Linear(dim, shape.width)
        self.places = random_parameter(count, shape.width)
        self.mask_token = random_parameter(1, shape.width)
        self.positions = sincos_positions(shape.side, shape.width) if positions is None else positions
        self.body = Transformer(shape.width, shape.depth, shape.heads)

    def forward(self, latents: Tensor, keep: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """Return the patch features. Raises ValueError if there are both `keep` and a context."""
        embedded = self.embed(latents) + self.places[: latents.shape[1]]
        queries = (self.mask_token + self.positions).expand(len(latents), -1, -1)
        mask = None
        if keep is not None:
            if context is not None:
                raise ValueError("`keep` covers latents and patches only, so a context cannot be used with it")
            visible = torch.cat([keep, keep.new_ones(len(keep), queries.shape[1])], 1)
            own = torch.eye(visible.shape[1], dtype=torch.bool, device=visible.device)  # a row of False gives NaN
            mask = (visible[:, None, :] | own)[:, None]
        parts = [embedded, queries, *([] if context is None else [context])]
        count = latents.shape[1]
        return self.body(torch.cat(parts, 1), mask)[:, count : count + queries.shape[1]]
