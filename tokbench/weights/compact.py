"""Compact weights: int8 with one scale per output channel, or float16."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from tokbench.errors import AdapterError

SUFFIX = ".scale"
"""The scales of the int8 tensor `name` are the tensor `name.scale`, so that a file needs no other description."""
_LARGEST = 127
"""Largest absolute int8 value. -128 is not used, so that the grid is symmetric."""


def compress(state: Mapping[str, Tensor], float16: Collection[str] = ()) -> dict[str, Tensor]:
    """Return tensors as they are stored, on the CPU.

    Floating-point tensors with at least two dimensions become int8, with one float32 scale for each entry of the first
    dimension (output channel): the channel's largest absolute value divided by 127. All other floating-point tensors
    become float16: the names in `float16`, vectors, tensors with only one channel, and tensors that int8 would not make
    smaller. Integer and boolean tensors do not change. The error of an int8 weight is at most half its channel's scale.

    Raises AdapterError for values that are not finite in the stored type, and for names or types that `expand` would
    misread.
    """
    stored: dict[str, Tensor] = {}
    for name, tensor in state.items():
        value = tensor.detach().cpu()
        if value.dtype == torch.int8:
            raise AdapterError(f"{name}: int8 is the type of compressed weights; give this buffer another integer type")
        if name.endswith(SUFFIX) and name.removesuffix(SUFFIX) in state:
            raise AdapterError(f"{name}: this is the name of the scales of {name.removesuffix(SUFFIX)}; rename it")
        if not value.is_floating_point():
            stored[name] = value.contiguous()
        elif name in float16 or not _is_smaller_in_int8(value):
            stored[name] = _to_float16(name, value)
        else:
            stored[name], stored[name + SUFFIX] = _quantize(name, value.float())
    return stored


def is_int8(stored: Mapping[str, Tensor]) -> bool:
    """Return whether any of the stored tensors are compressed to int8."""
    return any(tensor.dtype == torch.int8 for tensor in stored.values())


def expand(stored: Mapping[str, Tensor], source: str = "the weights") -> dict[str, Tensor]:
    """Return the tensors that `compress` was given, with int8 tensors multiplied by their scales, as float32.

    Tensors of other types do not change, so the float16 files of earlier versions can be read as well.
    source: the name of the model, for error messages.
    Raises AdapterError if an int8 tensor has no scales, or if they have another shape or are not positive numbers.
    """
    state: dict[str, Tensor] = {}
    scales = {name + SUFFIX for name, tensor in stored.items() if tensor.dtype == torch.int8}
    for name, tensor in stored.items():
        if name in scales:
            continue
        if tensor.dtype == torch.int8:
            scale = _checked_scale(source, name, tensor, stored.get(name + SUFFIX))
            tensor = tensor.float() * scale.reshape(-1, *[1] * (tensor.dim() - 1))
        state[name] = tensor
    return state


def _is_smaller_in_int8(tensor: Tensor) -> bool:
    """Return whether int8 with its scales takes fewer bytes than float16. Single channels are not counted as weights:
    they are mostly position embeddings (1, N, D), whose N vectors should not share a scale."""
    channels = len(tensor) if tensor.dim() > 1 else 0
    return channels > 1 and tensor.numel() + 4 * channels < 2 * tensor.numel()


def _to_float16(name: str, value: Tensor) -> Tensor:
    half = value.half()
    if not torch.equal(half.isinf(), value.isinf()):
        raise AdapterError(f"{name} has values up to {value.abs().max():.3g}, but float16 ends at 65504")
    return half.contiguous()


def _quantize(name: str, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 values of the shape of `weights`, (C, ...), and scales (C,).

    A search for the scale with the smallest squared error, and a least-squares fit of the scale, improve the
    signal-to-noise ratio of the zoo's weights by less than 0.1 of 43 to 48 dB, so the largest value sets the scale.
    """
    if not weights.isfinite().all():
        raise AdapterError(f"{name} has values that are not finite, so it cannot be stored")
    rows = weights.flatten(1)
    scales = rows.abs().amax(1) / _LARGEST
    scales = torch.where(scales > 0, scales, 1.0)  # channels of zeros
    values = (rows / scales[:, None]).round().clamp(-_LARGEST, _LARGEST).to(torch.int8)
    return values.reshape(weights.shape).contiguous(), scales


def _checked_scale(source: str, name: str, tensor: Tensor, scale: Tensor | None) -> Tensor:
    problem = ""
    if scale is None:
        problem = "is int8 but has no scales"
    elif not scale.is_floating_point() or tensor.dim() < 2 or scale.shape != tensor.shape[:1]:
        shape, wanted = tuple(scale.shape), tuple(tensor.shape)
        problem = f"has shape {wanted}, which needs one floating-point scale for each row, but {shape} {scale.dtype}"
    elif not (scale.isfinite() & (scale > 0)).all():
        problem = "has scales that are not finite and positive"
    if problem:
        raise AdapterError(f"{source}: {name} {problem}; the file is damaged, so restore it or train the model again")
    assert scale is not None
    return scale.float()
