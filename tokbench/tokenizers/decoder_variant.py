"""DecoderVariant: the ways in which a decoder is run in practice, by name, and the decoders that they give."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tokbench.errors import NotApplicable, UsageError
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.captioned import CaptionedTokenizer
from tokbench.tokenizers.held_code import networks_of
from tokbench.tokenizers.tiled_decode import Seams, TiledDecoder
from tokbench.tokenizers.tokens import Tokens

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""The precisions in which decoders are deployed, by the name of the variant."""

LIBRARY_MODES = ("tiling", "slicing")
"""The modes of diffusers' autoencoders that save memory: overlapping tiles, and one image of a batch at a time."""

FORMS = "tiles=SIZE, tiles=SIZE,overlap=N, bf16, fp16, tiling, slicing or adapter:NAME"
"""The forms of a variant, for messages."""

_PART = re.compile(r"(?P<key>tiles|overlap)=?(?P<value>\d{1,6})|(?P<name>[a-z]+\d*)")
_BY = "by-"


@dataclass(frozen=True)
class DecoderVariant:
    """One way of running a decoder. `str()` returns the part of the task's name: `tiles256-overlap64-bf16`.

    tile, overlap: side of the tiles that are decoded separately, and by how much neighbours overlap, in pixels; None
    for the whole image. precision: a key of PRECISIONS; empty for float32. mode: one of LIBRARY_MODES; empty for none.
    adapter: the adapter that decodes instead, which is combined with nothing else; empty for the tokenizer itself.
    """

    tile: int | None = None
    overlap: int = 0
    precision: str = ""
    mode: str = ""
    adapter: str = ""

    @classmethod
    def parse(cls, text: str) -> DecoderVariant:
        """Parse a variant as written on the command line (`tiles=256,overlap=64`) or in the name of a task
        (`tiles256-overlap64`). Raises UsageError."""
        for start in ("adapter:", _BY):
            if text.startswith(start) and (name := text.removeprefix(start)):
                return cls(adapter=name)
        parts: dict[str, Any] = {}
        for part in re.split("[,-]", text):
            found = _PART.fullmatch(part.strip())
            key, value = _key_of(found) if found else ("", "")
            if not key or key in parts:
                raise UsageError(f"decoder '{text}': '{part}' is unknown or repeated; give {FORMS}")
            parts[key] = value
        variant = cls(**parts)
        if variant.tile == 0 or (variant.overlap and variant.overlap >= (variant.tile or 0)):
            raise UsageError(f"decoder '{text}': the overlap needs tiles that are larger, as in tiles=256,overlap=64")
        if variant.tile and variant.mode == "tiling":
            raise UsageError(f"decoder '{text}': give tiles=SIZE or tiling, the tiles of diffusers, not both")
        return variant

    def __str__(self) -> str:
        if self.adapter:
            return f"{_BY}{self.adapter}"
        tiles = [f"tiles{self.tile}"] if self.tile else []
        overlap = [f"overlap{self.overlap}"] if self.overlap else []
        return "-".join([*tiles, *overlap, *filter(None, (self.precision, self.mode))])


def _key_of(found: re.Match[str]) -> tuple[str, str | int]:
    """Return the field and the value of one part of a variant, or empty texts."""
    if found["key"]:
        return {"tiles": "tile"}.get(found["key"], found["key"]), int(found["value"])
    name = found["name"]
    return ("precision", name) if name in PRECISIONS else ("mode", name) if name in LIBRARY_MODES else ("", "")


@dataclass(frozen=True)
class VariantDecoder:
    """The decoder of one variant.

    decode: a function of tokens, seeds and the image size (height, width) that returns images (B, 3, H, W) in the range
    of the tokenizer's spec. seams: a function of the image size that returns where tiles begin and end.
    """

    decode: Callable[[Tokens, Sequence[int], tuple[int, int]], Tensor]
    seams: Callable[[tuple[int, int]], Seams]


def build_decoder(model: Tokenizer, variant: DecoderVariant, other: Tokenizer | None = None) -> VariantDecoder:
    """Return the decoder of a variant of `model`, whose networks must be on their device already.

    other: the tokenizer of `variant.adapter`, if the variant has one. Raises NotApplicable if the tokenizer has no such
    variant.
    """
    name = model.spec.name
    if model.spec.kind == "codec":
        raise NotApplicable(f"{name}: a codec has no decoder that could run in tiles or in half precision")
    if isinstance(model, CaptionedTokenizer) or isinstance(other, CaptionedTokenizer):
        raise NotApplicable(f"{name}: variants of a decoder get tokens alone, and a decoder here needs captions too")
    if other is not None:
        return VariantDecoder(partial(_whole, _decoder_of_other(model, other)), _no_seams)
    decoding = in_precision(model, PRECISIONS[variant.precision]) if variant.precision else model
    decode: Callable[[Tokens, Sequence[int]], Tensor] = decoding.decode
    if variant.mode:
        decode = _in_library_mode(decoding, variant.mode)
    if variant.tile is None:
        seams = partial(library_seams, model.module) if variant.mode == "tiling" else _no_seams
        return VariantDecoder(partial(_whole, decode), seams)
    tiled = TiledDecoder(model.spec, decode, variant.tile, variant.overlap)
    return VariantDecoder(tiled.decode, tiled.seams)


def _whole(
    decode: Callable[[Tokens, Sequence[int]], Tensor], tokens: Tokens, seeds: Sequence[int], size: tuple[int, int]
) -> Tensor:
    return decode(tokens, seeds).float()


def _no_seams(size: tuple[int, int]) -> Seams:
    return Seams()


def in_precision(model: Tokenizer, dtype: torch.dtype) -> Tokenizer:
    """Return a copy of a tokenizer whose networks compute in half precision, as after `network.to(dtype)`.

    All parameters and buffers are converted, and so are the floating-point inputs of each layer with parameters, since
    the code of a tokenizer passes it float32. Raises NotApplicable if no network could be converted.
    """
    short = str(dtype).removeprefix("torch.")
    if model.module is None or not any(True for _ in model.module.parameters()):
        raise NotApplicable(f"{model.spec.name}: it has no network that could compute in {short}")
    converted = copy.deepcopy(model)
    assert converted.module is not None
    for network in (converted.module, *networks_of(converted)):
        if any(isinstance(part, torch.jit.ScriptModule) for part in network.modules()):
            raise NotApplicable(
                f"{model.spec.name}: a TorchScript network computes in the precision in which it was exported"
            )
        network.to(dtype)
        for part in network.modules():
            if any(True for _ in part.parameters(recurse=False)):
                part.register_forward_pre_hook(partial(_convert_inputs, dtype), with_kwargs=True)
    return converted


def _convert_inputs(
    dtype: torch.dtype, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def converted(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    return tuple(map(converted, given)), {key: converted(value) for key, value in named.items()}


def _in_library_mode(model: Tokenizer, mode: str) -> Callable[[Tokens, Sequence[int]], Tensor]:
    """Return `model.decode` with a mode of diffusers' autoencoder switched on during the call."""
    network: Any = model.module
    if not callable(getattr(network, f"enable_{mode}", None)):
        raise NotApplicable(f"{model.spec.name}: it is not an autoencoder of diffusers with the mode {mode}")

    def decode(tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        getattr(network, f"enable_{mode}")()
        try:
            return model.decode(tokens, seeds)
        finally:
            getattr(network, f"disable_{mode}")()

    return decode


def library_seams(network: Any, size: tuple[int, int]) -> Seams:
    """Return where the tiles of a diffusers autoencoder begin and end, as far as its attributes tell; else none.

    Its classes name either the side of a tile and the share of it that overlaps, or a side and a step per axis, in
    pixels. An image that is no larger than a tile is not cut.
    """
    lines = []
    sides, steps = [], []
    for axis in ("height", "width"):
        side = getattr(network, f"tile_sample_min_{axis}", None) or getattr(network, "tile_sample_min_size", None)
        share = getattr(network, "tile_overlap_factor", None)
        step = getattr(network, f"tile_sample_stride_{axis}", None)
        step = int(side * (1 - share)) if step is None and side and share is not None else step
        if not side or not step:
            return Seams()
        sides.append(int(side))
        steps.append(int(step))
    if all(length <= side for length, side in zip(size, sides, strict=True)):
        return Seams()
    for length, side, step in zip(size, sides, steps, strict=True):
        starts = range(step, length, step)
        ends = (start + side for start in range(0, length, step))
        lines.append(tuple(sorted({line for line in (*starts, *ends) if 0 < line < length})))
    return Seams(*lines)


def _decoder_of_other(model: Tokenizer, other: Tokenizer) -> Callable[[Tokens, Sequence[int]], Tensor]:
    """Return the decoder of another tokenizer of the same latent space, in the range of `model`."""
    for name in ("kind", "downsample", "num_tokens", "codebook", "bits_per_token"):
        ours, theirs = getattr(model.spec, name), getattr(other.spec, name)
        if ours != theirs and not (isinstance(ours, float) and theirs and math.isclose(ours, theirs)):
            raise NotApplicable(
                f"{other.spec.name} cannot decode the tokens of {model.spec.name}: its spec says {name}={theirs!r}, "
                f"not {ours!r}"
            )
    (low, high), (other_low, other_high) = model.spec.range, other.spec.range

    def decode(tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        decoded = other.decode(tokens, seeds).float()
        if model.spec.range == other.spec.range:
            return decoded
        return (decoded - other_low) / (other_high - other_low) * (high - low) + low

    return decode
