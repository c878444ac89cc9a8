"""The parts of a vision transformer that token-reduction methods use: its blocks and its attention."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.errors import UsageError

Kernel = Literal["sdpa", "eager"]
"""How attention is computed: by `torch.nn.functional.scaled_dot_product_attention` (sdpa), or by two matrix products
that materialize the attention map (eager)."""

_BLOCK = {"norm1", "attn", "norm2", "mlp"}
_ATTENTION = {"qkv", "proj"}
_MAY_BLOCK = {"ls1", "ls2", "drop_path1", "drop_path2"}
_MAY_ATTENTION = {"q_norm", "k_norm", "attn_drop", "norm", "gate", "proj_drop"}
_TAKES = {"x", "attn_mask", "is_causal"}
_POSITIONS = ("rope", "rel_pos_bias")
"""Attributes of models whose positions enter every attention layer; these are not supported."""


@dataclass(frozen=True)
class Sizes:
    """Dimensions of a transformer.

    depth: blocks. width: D. hidden: hidden width of the MLPs. patches: patch tokens. prefix: tokens before them (CLS,
    registers). patch_values: values per patch; of an embedding with more layers, its multiplications for one patch
    divided by D (attribute `values_per_patch`). classes: outputs. cls: whether the first token is a CLS token.
    """

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
    """A supported transformer, its blocks and its dimensions."""

    model: nn.Module
    blocks: list[Any]
    sizes: Sizes


def recognise(model: nn.Module) -> Vit:
    """Return the parts of a ViT as built by timm (including DeiT, AugReg, CLIP and DINOv2 towers).

    Raises UsageError, with the name of the part, for models whose blocks compute something that this package does not
    reproduce: rotary or relative positions, windows, parallel branches, or unknown gates.
    """
    what = type(model).__name__
    blocks: Any = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.ModuleList | nn.Sequential) or not len(blocks):
        raise UsageError(f"{what} has no list of blocks, so its tokens cannot be reduced; use a plain timm ViT")
    listed: list[Any] = list(blocks)
    for place, block in enumerate(listed):
        where = f"{what}: block {place} ({type(block).__name__})"
        _refuse_unknown(block, _BLOCK, _MAY_BLOCK, where)
        if more := sorted(set(inspect.signature(type(block).forward).parameters) - _TAKES - {"self"}):
            raise UsageError(f"{where} is not supported: it takes {', '.join(more)}; use a plain timm ViT")
        if "ResPost" in type(block).__name__:
            raise UsageError(f"{where} is not supported: its norms follow the layers; use a plain timm ViT")
        _refuse_unknown(block.attn, _ATTENTION, _MAY_ATTENTION, f"{what}: attention {place}")
    for name in _POSITIONS:
        if getattr(model, name, None) is not None:
            raise UsageError(f"{what} is not supported: it has {name}; use a plain timm ViT")
    embed: Any = getattr(model, "patch_embed", None)
    head: Any = getattr(model, "head", None)
    weight = first_parameter(model)
    if weight.dtype in (torch.float16, torch.bfloat16) and weight.device.type == "cpu":
        raise UsageError(f"{what} is in half precision on a CPU, where it is slow; call .float() on the model")
    first = listed[0]
    if not hasattr(embed, "num_patches") or not isinstance(getattr(embed, "proj", None), nn.Conv2d):
        raise UsageError(f"{what}: patches are not embedded by a single convolution (patch_embed.proj)")
    values = getattr(embed, "values_per_patch", None)  # of an embedding with more layers, which says what they cost
    if values is None and embed.proj.in_channels != 3:
        raise UsageError(f"{what}: patches have {embed.proj.in_channels} channels instead of 3")
    if not isinstance(head, nn.Linear):
        raise UsageError(f"{what} is not a classifier: its head is {type(head).__name__}, not a linear layer")
    values = values or embed.proj.weight[0].numel()
    hidden = [m for m in first.mlp.modules() if isinstance(m, nn.Linear)]
    cls = getattr(model, "cls_token", None) is not None
    sizes = Sizes(
        len(blocks), first.attn.qkv.in_features, hidden[0].out_features, embed.num_patches,
        int(getattr(model, "num_prefix_tokens", int(cls))), values, head.out_features, cls,
    )  # fmt: skip
    return Vit(model, listed, sizes)


def first_parameter(model: nn.Module) -> Tensor:
    """Return the parameter whose device and precision stand for the whole model."""
    return next(model.parameters())


def _refuse_unknown(module: nn.Module, needed: set[str], allowed: set[str], where: str) -> None:
    """Raise UsageError if a module lacks a needed part or has a part that is not allowed."""
    parts = {name for name, part in module.named_children() if not isinstance(part, nn.Identity)}
    present = {name for name, _ in module.named_children()}
    if missing := sorted(needed - present):
        raise UsageError(f"{where} is not supported: it has no {', '.join(missing)}; use a plain timm ViT")
    if unknown := sorted(parts - needed - allowed):
        raise UsageError(f"{where} is not supported: unknown part {', '.join(unknown)}; use a plain timm ViT")


@dataclass(frozen=True)
class Attended:
    """The inputs of one attention: query, key, value (B, heads, N, d), and a bias (B, 1, 1, N) on the keys or None.

    Attention maps are computed on demand, separately from the output, because fused kernels do not return them.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor | None = None

    def rows(self, queries: slice) -> Tensor:
        """Return the attention of some queries over all keys, (B, heads, n, N); rows sum to 1."""
        logits = (self.query[:, :, queries] * self.key.shape[-1] ** -0.5) @ self.key.transpose(-2, -1)
        return (logits if self.bias is None else logits + self.bias).softmax(-1)

    def cls(self) -> Tensor:
        """Return the attention of the first token, averaged over heads, (B, N). Cost: O(N d)."""
        return self.rows(slice(0, 1)).mean(1)[:, 0]

    def map(self) -> Tensor:
        """Return the attention map, (B, heads, N, N). Cost: O(N^2 d)."""
        return self.rows(slice(None))


def attend(attention: Any, x: Tensor, kernel: Kernel, bias: Tensor | None) -> tuple[Tensor, Attended]:
    """Compute timm's attention of (B, N, D); return its output (B, N, D) and its inputs."""
    seen = project_qkv(attention, x, bias)
    if kernel == "sdpa":
        drop = attention.attn_drop.p if attention.training else 0.0
        mixed = F.scaled_dot_product_attention(seen.query, seen.key, seen.value, attn_mask=bias, dropout_p=drop)
    else:
        mixed = attention.attn_drop(seen.map()) @ seen.value
    return project_output(attention, x, mixed), seen


def project_qkv(attention: Any, x: Tensor, bias: Tensor | None = None) -> Attended:
    """Return the queries, keys and values of tokens (B, N, D)."""
    qkv = attention.qkv(x).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    query, key, value = qkv.unbind(0)
    if (norm := getattr(attention, "q_norm", None)) is not None:
        query, key = norm(query), attention.k_norm(key)
    return Attended(query, key, value, bias)


def project_output(attention: Any, x: Tensor, mixed: Tensor) -> Tensor:
    """Apply the output projection to attended values `mixed` (B, heads, N, d); return the update of x (B, N, D)."""
    out = mixed.transpose(1, 2).flatten(2)
    if (norm := getattr(attention, "norm", None)) is not None:
        out = norm(out)
    if (gate := getattr(attention, "gate", None)) is not None:
        out = out * gate(x).sigmoid()
    return attention.proj_drop(attention.proj(out))


def identity(block: Any, part: str, x: Tensor) -> Tensor:
    """Apply a part of a block if it exists; some timm versions do not have it."""
    found = getattr(block, part, None)
    return x if found is None else found(x)


@torch.no_grad()
def images_like(vit: Vit, count: int, seed: int = 0) -> Tensor:
    """Return noise (count, 3, H, W) of the transformer's input size, on its device and in its precision."""
    embed: Any = vit.model.patch_embed
    side, weight = embed.img_size, embed.proj.weight
    noise = torch.randn(count, weight.shape[1], *side, generator=torch.Generator().manual_seed(seed))
    return noise.to(weight.device, weight.dtype)
