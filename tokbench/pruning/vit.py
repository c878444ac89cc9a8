"""What a token-reduction method may touch of a vision transformer: its blocks, and what its attention has seen."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.errors import UsageError

Kernel = Literal["sdpa", "eager"]
"""How attention is computed: `torch.nn.functional.scaled_dot_product_attention`, or two matrix products with the map in
between."""

_BLOCK = {"norm1", "attn", "norm2", "mlp"}
_ATTENTION = {"qkv", "proj"}
_MAY_BLOCK = {"ls1", "ls2", "drop_path1", "drop_path2"}
_MAY_ATTENTION = {"q_norm", "k_norm", "attn_drop", "norm", "gate", "proj_drop"}
_TAKES = {"x", "attn_mask", "is_causal"}
_POSITIONS = ("rope", "rel_pos_bias")
"""Attributes of a whole model whose positions enter every attention."""


@dataclass(frozen=True)
class Sizes:
    """Of a transformer: blocks, width D, hidden width of an MLP, patch tokens, other tokens before them (CLS,
    registers), values of a patch, classes. cls: whether the first token is a CLS token."""

    depth: int
    width: int
    hidden: int
    patches: int
    prefix: int
    patch_values: int
    classes: int
    cls: bool


@dataclass(frozen=True)
class Vit:
    """A recognised transformer."""

    model: nn.Module
    blocks: list[Any]
    sizes: Sizes


def recognise(model: nn.Module) -> Vit:
    """The parts of a ViT as timm builds it (DeiT, AugReg, CLIP and DINOv2 towers among them).

    Raises UsageError, naming the part, for anything whose blocks compute what this package would not: rotary or
    relative positions, windows, parallel branches, gates that are not there to be seen.
    """
    what = type(model).__name__
    blocks: Any = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.ModuleList | nn.Sequential) or not len(blocks):
        raise UsageError(f"{what} has no list of blocks, so its tokens cannot be reduced; bring a plain ViT of timm's")
    listed: list[Any] = list(blocks)
    for place, block in enumerate(listed):
        where = f"{what}: block {place} ({type(block).__name__})"
        _refuse_unknown(block, _BLOCK, _MAY_BLOCK, where)
        if more := sorted(set(inspect.signature(type(block).forward).parameters) - _TAKES - {"self"}):
            raise UsageError(f"{where} is not recognised: it takes {', '.join(more)}; bring a plain ViT of timm's")
        if "ResPost" in type(block).__name__:
            raise UsageError(f"{where} is not recognised: its norms come behind its parts; bring a plain ViT of timm's")
        _refuse_unknown(block.attn, _ATTENTION, _MAY_ATTENTION, f"{what}: attention {place}")
    for name in _POSITIONS:
        if getattr(model, name, None) is not None:
            raise UsageError(f"{what} is not recognised: {name} is unknown here; bring a plain ViT of timm's")
    embed: Any = getattr(model, "patch_embed", None)
    head: Any = getattr(model, "head", None)
    weight = first_parameter(model)
    if weight.dtype in (torch.float16, torch.bfloat16) and weight.device.type == "cpu":
        raise UsageError(f"{what} is in half precision on a CPU, which emulates it slowly; call .float() on it")
    first = listed[0]
    if not hasattr(embed, "num_patches") or not isinstance(getattr(embed, "proj", None), nn.Conv2d):
        raise UsageError(f"{what}: its patches are not embedded by one convolution (patch_embed.proj)")
    if embed.proj.in_channels != 3:
        raise UsageError(f"{what}: its patches are of {embed.proj.in_channels} channels, not of an image's 3")
    if not isinstance(head, nn.Linear):
        raise UsageError(f"{what} names no classes: its head is {type(head).__name__}, not one linear layer")
    kernel, hidden = embed.proj.weight[0].numel(), [m for m in first.mlp.modules() if isinstance(m, nn.Linear)]
    cls = getattr(model, "cls_token", None) is not None
    sizes = Sizes(
        len(blocks), first.attn.qkv.in_features, hidden[0].out_features, embed.num_patches,
        int(getattr(model, "num_prefix_tokens", int(cls))), kernel, head.out_features, cls,
    )  # fmt: skip
    return Vit(model, listed, sizes)


def first_parameter(model: nn.Module) -> Tensor:
    """Whose device and precision are taken for the whole model's."""
    return next(model.parameters())


def _refuse_unknown(module: nn.Module, needed: set[str], allowed: set[str], where: str) -> None:
    parts = {name for name, part in module.named_children() if not isinstance(part, nn.Identity)}
    present = {name for name, _ in module.named_children()}
    if missing := sorted(needed - present):
        raise UsageError(f"{where} is not recognised: it has no {', '.join(missing)}; bring a plain ViT of timm's")
    if unknown := sorted(parts - needed - allowed):
        raise UsageError(
            f"{where} is not recognised: {', '.join(unknown)} is unknown here; bring a plain ViT of timm's"
        )


@dataclass(frozen=True)
class Attended:
    """What one attention saw: query, key, value (B, heads, N, d), and a bias (B, 1, 1, N) on the keys or None.

    Maps are computed when they are asked for, apart from the kernel that made the output: fused kernels keep none.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor | None = None

    def rows(self, queries: slice) -> Tensor:
        """Attention of some queries over all keys, (B, heads, n, N), each row of sum 1."""
        logits = (self.query[:, :, queries] * self.key.shape[-1] ** -0.5) @ self.key.transpose(-2, -1)
        return (logits if self.bias is None else logits + self.bias).softmax(-1)

    def cls(self) -> Tensor:
        """What the first token looks at, mean over heads, (B, N). O(N d)."""
        return self.rows(slice(0, 1)).mean(1)[:, 0]

    def map(self) -> Tensor:
        """(B, heads, N, N). O(N^2 d)."""
        return self.rows(slice(None))


def attend(attention: Any, x: Tensor, kernel: Kernel, bias: Tensor | None) -> tuple[Tensor, Attended]:
    """timm's attention of (B, N, D), operation by operation, and what it saw."""
    seen = look(attention, x, bias)
    if kernel == "sdpa":
        drop = attention.attn_drop.p if attention.training else 0.0
        mixed = F.scaled_dot_product_attention(seen.query, seen.key, seen.value, attn_mask=bias, dropout_p=drop)
    else:
        mixed = attention.attn_drop(seen.map()) @ seen.value
    return told(attention, x, mixed), seen


def look(attention: Any, x: Tensor, bias: Tensor | None = None) -> Attended:
    """The queries, keys and values of (B, N, D)."""
    qkv = attention.qkv(x).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    query, key, value = qkv.unbind(0)
    if (norm := getattr(attention, "q_norm", None)) is not None:
        query, key = norm(query), attention.k_norm(key)
    return Attended(query, key, value, bias)


def told(attention: Any, x: Tensor, mixed: Tensor) -> Tensor:
    """What attention adds to (B, N, D), of values that are mixed already, (B, heads, N, d)."""
    out = mixed.transpose(1, 2).flatten(2)
    if (norm := getattr(attention, "norm", None)) is not None:
        out = norm(out)
    if (gate := getattr(attention, "gate", None)) is not None:
        out = out * gate(x).sigmoid()
    return attention.proj_drop(attention.proj(out))


def identity(block: Any, part: str, x: Tensor) -> Tensor:
    """A part of a block that some of timm's versions do not have."""
    found = getattr(block, part, None)
    return x if found is None else found(x)


@torch.no_grad()
def images_like(vit: Vit, count: int, seed: int = 0) -> Tensor:
    """Noise (count, 3, H, W) of the size that a transformer takes, on its device and in its precision."""
    embed: Any = vit.model.patch_embed
    side, weight = embed.img_size, embed.proj.weight
    made = torch.randn(count, weight.shape[1], *side, generator=torch.Generator().manual_seed(seed))
    return made.to(weight.device, weight.dtype)
