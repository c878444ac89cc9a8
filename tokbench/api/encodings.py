"""What other people's `encode` and `decode` return, and the tokens or images in it."""

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
    "write a subclass of tokbench.Tokenizer, whose `encode` returns tokbench.Tokens, and give an instance of it "
    "(docs/python.md)"
)
"""What helps where the output of a model is not one of the accepted forms."""


@dataclass(frozen=True)
class Encoded:
    """The tokens of B images. latents: floats (B, C, h, w), (B, N, D) or (B, D); codes: int64 (B, h, w) or (B, N). Both
    are there where an encoder returns quantized vectors and, among its other outputs, their codes."""

    latents: Tensor | None
    codes: Tensor | None


def read_encoded(output: Any, name: str, batch: int) -> Encoded:
    """The tokens in what `encode` returned for a batch of images.

    A tensor of floats is latents, one of integers codes. Of a tuple or list the first entry counts; integers among the
    others, one for each position of it, are its codes. `.latent_dist`, `.latents`, `.latent` and objects with a `mode`
    (the mode of a posterior, not a sample) are what diffusers and CompVis return. Raises AdapterError for others.
    """
    first, rest = (output[0], output[1:]) if isinstance(output, tuple | list) and output else (output, ())
    tensor = _tensor(first)
    if tensor is None:
        raise AdapterError(
            f"{name}: encode returned {described(output)}; accepted are a tensor of latents or of integer codes, a "
            f"tuple that starts with one, and outputs with .latent_dist, .latents or .latent; {REMEDY}"
        )
    if tensor.dim() == 0 or len(tensor) != batch:
        raise AdapterError(
            f"{name}: encode returned a tensor of shape {tuple(tensor.shape)} for {batch} images; the first axis must "
            f"be that of the images, or {REMEDY}"
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
    """The images in what `decode`, or a function from images to images, returned: a tensor, a tuple that starts with
    one, or an object whose `.sample` is one (diffusers). Raises AdapterError for others."""
    found = output[0] if isinstance(output, tuple | list) and output else output
    if not isinstance(found, Tensor):
        found = getattr(found, "sample", None)
    if not isinstance(found, Tensor):
        raise AdapterError(
            f"{name}: {function} returned {described(output)}; accepted are a tensor of images (B, 3, H, W), a tuple "
            f"that starts with one, and an output with .sample; {REMEDY}"
        )
    return found


def described(output: Any) -> str:
    """An output in a few words: its type, and the shapes or keys in it."""
    kind = type(output).__name__
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)} and type {output.dtype}"
    if isinstance(output, Tokens):
        return "Tokens, which only a subclass of tokbench.Tokenizer returns"
    if isinstance(output, tuple | list):
        return f"a {kind} of ({', '.join(type(part).__name__ for part in output)})"
    if isinstance(output, dict):
        return f"a {kind} with the keys {', '.join(map(str, output))}"
    return f"a {kind}" if output is not None else "None"


def _tensor(part: Any) -> Tensor | None:
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
    """The codes (B, h, w) or (B, N) of quantized vectors among an encoder's other outputs; None where it has none."""
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
            f"are not one code for each of the vectors; {REMEDY}"
        )
    return fitting[0].reshape(shape).long()


def _tensors(part: Any) -> Iterator[Tensor]:
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, dict):
        yield from _tensors(list(part.values()))
    elif isinstance(part, tuple | list):
        for inner in part:
            yield from _tensors(inner)
