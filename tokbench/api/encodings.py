"""Interpretation of the outputs of third-party `encode` and `decode` functions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tokbench.errors import AdapterError
from tokbench.tokenizers.tokens import Tokens

REMEDY = (
    "write a subclass of tokbench.Tokenizer whose `encode` returns tokbench.Tokens, and pass an instance of it "
    "(see docs/python.md)"
)
"""Advice if the output of a model has none of the accepted forms."""


@dataclass(frozen=True)
class Encoded:
    """The tokens of B images.

    latents: floats (B, C, h, w), (B, N, D) or (B, D). codes: int64 (B, h, w) or (B, N). Both are set if an encoder
    returns quantized vectors and, among its other outputs, their codes.
    """

    latents: Tensor | None
    codes: Tensor | None


def read_encoded(output: Any, name: str, batch: int) -> Encoded:
    """Return the tokens in the output of `encode` for a batch of images.

    A float tensor holds latents, an integer tensor holds codes. The first entry of a tuple or list is used; an integer
    tensor among the other entries, with one value per position, holds its codes. Outputs of diffusers and CompVis with
    `.latent_dist`, `.latents`, `.latent` or `mode` are accepted too (the mode of a posterior is used, not a sample).
    Raises AdapterError for other outputs.
    """
    first, rest = (output[0], output[1:]) if isinstance(output, tuple | list) and output else (output, ())
    tensor = _tensor(first)
    if tensor is None:
        raise AdapterError(
            f"{name}: encode returned {describe_output(output)}; accepted are a tensor of latents or of integer codes, "
            f"a tuple that starts with one, and outputs with .latent_dist, .latents or .latent; {REMEDY}"
        )
    if tensor.dim() == 0 or len(tensor) != batch:
        raise AdapterError(
            f"{name}: encode returned a tensor of shape {tuple(tensor.shape)} for {batch} images; the first axis must "
            f"be the batch, or {REMEDY}"
        )
    if tensor.is_floating_point():
        if tensor.dim() not in (2, 3, 4):
            raise AdapterError(
                f"{name}: encode returned latents of shape {tuple(tensor.shape)}; they must be (B, C, h, w), "
                f"(B, N, D) or (B, D), or {REMEDY}"
            )
        return Encoded(tensor, _codes_of(tensor, rest, name))
    if tensor.dtype == torch.bool or tensor.is_complex() or tensor.dim() not in (2, 3):
        raise AdapterError(
            f"{name}: encode returned codes of shape {tuple(tensor.shape)} and type {tensor.dtype}; they must be "
            f"integers (B, h, w) or (B, N), or {REMEDY}"
        )
    return Encoded(None, tensor.long())


def read_images(output: Any, name: str, function: str) -> Tensor:
    """Return the images in the output of `decode`, or of a function from images to images.

    Accepted are a tensor, a tuple that starts with one, and an object whose `.sample` is one (diffusers). Raises
    AdapterError for other outputs.
    """
    found = output[0] if isinstance(output, tuple | list) and output else output
    if not isinstance(found, Tensor):
        found = getattr(found, "sample", None)
    if not isinstance(found, Tensor):
        raise AdapterError(
            f"{name}: {function} returned {describe_output(output)}; accepted are a tensor of images (B, 3, H, W), a "
            f"tuple that starts with one, and an output with .sample; {REMEDY}"
        )
    return found


def describe_output(output: Any) -> str:
    """Describe an output for an error message: its type, shape or keys."""
    kind = type(output).__name__
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)} and type {output.dtype}"
    if isinstance(output, Tokens):
        return "Tokens, which only a subclass of tokbench.Tokenizer may return"
    if isinstance(output, tuple | list):
        return f"a {kind} of ({', '.join(type(part).__name__ for part in output)})"
    if isinstance(output, dict):
        return f"a {kind} with the keys {', '.join(map(str, output))}"
    return f"a {kind}" if output is not None else "None"


def _tensor(part: Any) -> Tensor | None:
    """Return the tensor of tokens in one output; None if there is none."""
    if isinstance(part, Tensor):
        return part
    for name in ("latent_dist", "latents", "latent", "mode"):
        inner = getattr(part, name, None)
        if callable(inner) and not isinstance(inner, Tensor):
            inner = inner() if name == "mode" else inner
        if inner is not None:
            return inner if isinstance(inner, Tensor) else _tensor(inner) if name == "latent_dist" else None
    return None


def _codes_of(latents: Tensor, rest: Any, name: str) -> Tensor | None:
    """Return the codes (B, h, w) or (B, N) of quantized vectors among an encoder's other outputs, or None."""
    positions = latents.shape[2:] if latents.dim() == 4 else latents.shape[1:-1]
    shape = (len(latents), *positions)
    integers = [tensor for tensor in _tensors(rest) if not (tensor.is_floating_point() or tensor.is_complex())]
    integers = [tensor for tensor in integers if tensor.dtype != torch.bool and tensor.dim()]
    if not integers:
        return None
    fitting = [tensor for tensor in integers if tensor.numel() == math.prod(shape)]
    if len(integers) > 1 or not fitting or len(shape) == 1:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in integers)
        raise AdapterError(
            f"{name}: encode returned vectors of shape {tuple(latents.shape)} and integers of shape {shapes}, which "
            f"are not one code per vector; {REMEDY}"
        )
    return fitting[0].reshape(shape).long()


def _tensors(part: Any) -> Iterator[Tensor]:
    """Yield all tensors in nested tuples, lists and dicts."""
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, dict):
        yield from _tensors(list(part.values()))
    elif isinstance(part, tuple | list):
        for inner in part:
            yield from _tensors(inner)
