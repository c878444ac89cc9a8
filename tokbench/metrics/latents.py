"""Tokens as vectors on a grid, and images decoded from changed tokens: what the metrics of latents share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tokbench.errors import NotApplicable
from tokbench.tokenizers.base import ImageModel, Tokenizer
from tokbench.tokenizers.captioned import bind_captions
from tokbench.tokenizers.tiling import TilingPlan, fit
from tokbench.tokenizers.tokens import Tokens

if TYPE_CHECKING:
    from tokbench.metrics.batch import Batch

Size = tuple[int, int]


def plan_of(model: ImageModel, size: Size) -> tuple[Tokenizer, TilingPlan]:
    """Return a model as a tokenizer, and how it pads images of that (height, width) in px.

    Raises NotApplicable if it is not a tokenizer, or if images are cut into tiles.
    """
    if not isinstance(model, Tokenizer):
        raise NotApplicable(f"{model.spec.name}: it is not a tokenizer, so its tokens are not vectors")
    plan = fit(model.spec, *size)
    if plan.tiles > 1:
        raise NotApplicable(f"{model.spec.name}: images of {size[1]}x{size[0]} px are cut into tiles; give --size")
    return model, plan


@torch.inference_mode()
def vectors_of(model: ImageModel, tokens: Tokens, size: Size) -> Tensor:
    """Return tokens as vectors on the CPU, float32 (B, *position, D). size: (height, width) of the images in px.

    Raises NotApplicable if tokens are not vectors, or if images are cut into tiles.
    """
    return plan_of(model, size)[0].vectors(tokens).float().cpu()


def grid_of(model: ImageModel, size: Size) -> Size:
    """Return the rows and columns of the grid of an image's tokens.

    Raises NotApplicable if tokens are not on a grid, or if images are padded or cut into tiles.
    """
    tokenizer, plan = plan_of(model, size)
    step = tokenizer.spec.downsample
    if step is None:
        raise NotApplicable(f"{tokenizer.spec.name}: its tokens are not on a grid (its spec declares no `downsample`)")
    if plan.padded != size:
        raise NotApplicable(f"{tokenizer.spec.name}: images of {size[1]}x{size[0]} px are padded; give --size")
    return size[0] // step, size[1] // step


def grid_vectors(model: ImageModel, tokens: Tokens, size: Size) -> Tensor:
    """Return tokens as vectors on their grid, float32 (B, rows, columns, D). A row of vectors is read row by row.

    Raises NotApplicable as `grid_of` and `vectors_of` do, and if there is not one vector per place of the grid.
    """
    rows, columns = grid_of(model, size)
    vectors = vectors_of(model, tokens, size)
    if tuple(vectors.shape[1:-1]) not in ((rows, columns), (rows * columns,)):
        shape = tuple(vectors.shape[1:])
        raise NotApplicable(f"{model.spec.name}: vectors of shape {shape} are not on a grid of {rows}x{columns}")
    return vectors.reshape(len(vectors), rows, columns, -1)


def with_layout(model: ImageModel, tokens: Tokens) -> Tokens:
    """Return tokens whose latents state their layout if their shape does not show it, as `Tokenizer.with_layout`."""
    assert isinstance(model, Tokenizer)
    return model.with_layout(tokens)


def latents_of(model: ImageModel, tokens: Tokens) -> Tensor:
    """Return the only stream of continuous tokens, float32 (B, ...). Raises NotApplicable for other tokens."""
    streams = list(tokens.streams.values())
    if len(streams) != 1 or streams[0].kind != "latent" or isinstance(streams[0].data, tuple):
        raise NotApplicable(f"{model.spec.name}: its tokens are not one stream of continuous values")
    return streams[0].data.float()


@torch.inference_mode()
def decode_tokens(model: ImageModel, tokens: Tokens, batch: Batch, batch_size: int, size: Size | None = None) -> Tensor:
    """Return the images (B, 3, H, W) in [0, 1] on the CPU that changed tokens of a batch decode to.

    batch: the images whose tokens were changed; their captions, if any, are used, and their positions are the seeds.
    batch_size: images per call of the decoder. size: (height, width) of the images, that of the batch by default.
    """
    size = size or tuple(batch.require("reference").shape[2:])
    low, high = model.spec.range
    plan, parts = fit(model.spec, *size), []
    seeds: Sequence[int] = batch.index.tolist()
    for start in range(0, len(tokens), batch_size):
        some = range(start, min(start + batch_size, len(tokens)))
        captions = [batch.captions[place] for place in some] if batch.captions else None
        bound = bind_captions(model, captions)
        assert isinstance(bound, Tokenizer)
        decoded = bound.decode(tokens.select(some), [seeds[place] for place in some])
        parts.append(decoded.float().sub(low).div(high - low).clamp(0, 1).cpu())
    return plan.join(torch.cat(parts))
