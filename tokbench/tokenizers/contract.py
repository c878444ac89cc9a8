"""Checks that a tokenizer keeps its contract. Tokens, shapes and values are checked on all images, costly properties on
the first ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tokbench.errors import AdapterError
from tokbench.tokenizers.base import ImageModel, PrecomputedImages, Tokenizer
from tokbench.tokenizers.captioned import BoundTokenizer
from tokbench.tokenizers.spec import KINDS, VALUE_BITS, TokenizerSpec
from tokbench.tokenizers.tokens import Tokens, TokenStream

NUM_PROBED = 4
"""The number of images on which the costly checks run."""

_MAX_OVERSHOOT, _MAX_SHARE = 0.5, 0.1
"""The largest distance of a pixel from the range, as a share of its width, and the largest share of pixels beyond it.

Every decoder overshoots a little, and the values are clamped. Where a tenth of the pixels lie half a width outside, the
declared range is wrong."""

_CLOSE = 1e-6
"""The relative tolerance when two numbers of bits are compared."""


def check_kind(model: ImageModel) -> None:
    """Check that the kind in the spec and the class of the model agree. Raises AdapterError if they do not."""
    spec = model.spec
    if isinstance(model, PrecomputedImages) != (spec.kind == "images"):
        what = (
            "a PrecomputedImages, which has no tokens"
            if isinstance(model, PrecomputedImages)
            else "not a PrecomputedImages"
        )
        raise AdapterError(f"{spec.name}: its spec says kind '{spec.kind}', but it is {what}; make both agree")


@torch.inference_mode()
def probe(model: Tokenizer, images: Tensor, names: Sequence[str], seeds: Sequence[int]) -> None:
    """Encode and decode a few images (B, 3, H, W), in `spec.range` and on the device, one more time than needed.

    Raises AdapterError if `encode` modifies its input, or if the output of `decode` does not depend on the tokens
    but on the images that were encoded before.
    """
    name, given = model.spec.name, images.clone()
    tokens = model.encode(images)
    if not torch.equal(images, given):
        raise AdapterError(
            f"{name}: encode modified its input ({names[0]} and the rest of the batch); it must work on a copy"
        )
    check_tokens(tokens, given, model, names)
    decoded = model.decode(tokens, seeds)
    check_images(decoded, given, model, names)
    if len(images) < 2:
        return
    order = list(range(len(images)))[::-1]
    same_order = model.select(order) if isinstance(model, BoundTokenizer) else model
    reordered = same_order.decode(tokens.select(order), [seeds[p] for p in order])
    check_images(reordered, given, model, [names[p] for p in order])
    # Tokens in reversed order must give the images in reversed order, not in the order of the first call.
    ignored, followed = (float((reordered - other).abs().mean()) for other in (decoded, decoded[order]))
    images_differ = float((given - given[order]).abs().mean()) > 0
    if images_differ and ignored <= followed and not _same_tokens(tokens, order):
        raise AdapterError(
            f"{name}: decode ignores its tokens: when the tokens of {names[0]} and the next images were reordered, the "
            "decoded images came in the same order as before"
        )


def _same_tokens(tokens: Tokens, order: Sequence[int]) -> bool:
    other = tokens.select(order)
    return all(
        torch.equal(stream.data, other.streams[name].data)  # type: ignore[arg-type]
        if isinstance(stream.data, Tensor)
        else stream.data == other.streams[name].data
        for name, stream in tokens.streams.items()
    )


def check_tokens(tokens: Tokens, part: Tensor, model: ImageModel, names: Sequence[str], whole: bool = True) -> None:
    """Check that the tokens have the streams, number and bits that the spec declares.

    part: the images (B, 3, H, W) that were encoded. whole: whether the tokens are all tokens of each image rather than
    only the first ones. Raises AdapterError that names an image if the tokens do not agree with the spec.
    """
    name, spec = model.spec.name, model.spec
    if not isinstance(tokens, Tokens):
        raise AdapterError(f"{name}: encode returned {type(tokens).__name__}, not Tokens")
    if len(tokens) != len(part):
        raise AdapterError(f"{name}: encode returned tokens of {len(tokens)} images for {len(part)} images")
    _check_streams(tokens, part, spec, names)
    if whole:
        _check_length(tokens, part, spec, names)
        _check_bits(tokens, spec, names)
    elif (declared := spec.tokens_of(part.shape[1:])) and int(tokens.length.max()) > declared:
        raise AdapterError(f"{name}: an image has {int(tokens.length.max())} tokens, but its spec declares {declared}")


def _check_streams(tokens: Tokens, part: Tensor, spec: TokenizerSpec, names: Sequence[str]) -> None:
    for declared, size in spec.codebook.items():
        if declared not in tokens.streams or tokens.streams[declared].codebook_size != size:
            raise AdapterError(
                f"{spec.name}: its spec declares stream '{declared}' with {size} codes, but encode did not return it"
            )
    for name, encoded in tokens.streams.items():
        if encoded.kind != KINDS[spec.kind]:
            raise AdapterError(
                f"{spec.name}: its spec says kind '{spec.kind}', but stream '{name}' of {names[0]} is of kind "
                f"'{encoded.kind}'; make both agree"
            )
        if encoded.kind != "index" or not isinstance(encoded.data, Tensor):
            continue
        if name not in spec.codebook:
            raise AdapterError(
                f"{spec.name}: encode returned the stream '{name}', which its spec's codebook does not list"
            )
        if spec.groups not in (None, encoded.groups):
            raise AdapterError(
                f"{spec.name}: its spec says that a token has {spec.groups} indices, but in stream '{name}' of "
                f"{names[0]} it has {encoded.groups}; give groups={encoded.groups}"
            )
        positions = encoded.data.shape[1:-1] if encoded.groups > 1 else encoded.data.shape[1:]
        if spec.downsample is not None and spec.num_tokens is None and len(positions) == 2 and part.dim() == 4:
            grid = tuple(side // spec.downsample for side in part.shape[2:])
            if tuple(positions) != grid:
                raise AdapterError(
                    f"{spec.name}: {names[0]}: the tokens have a grid of {positions[0]}x{positions[1]}, but its spec's "
                    f"downsample={spec.downsample} gives {grid[0]}x{grid[1]} for {part.shape[2]}x{part.shape[3]} px"
                )
        if encoded.codebook_size is not None:
            flat = encoded.data.flatten(1)
            if (wrong := ((flat < 0) | (flat >= encoded.codebook_size)).any(1)).any():
                at = int(wrong.nonzero()[0])
                raise AdapterError(
                    f"{spec.name}: {names[at]}: stream '{name}' holds indices {int(flat[at].min())} to "
                    f"{int(flat[at].max())}, outside its codebook of {encoded.codebook_size}"
                )


def _check_length(tokens: Tokens, part: Tensor, spec: TokenizerSpec, names: Sequence[str]) -> None:
    """Check the number of tokens: 0 for a codec, else the declared number, or at most that number if the spec is
    `variable`."""
    declared = spec.tokens_of(part.shape[1:])
    if spec.kind == "codec":
        declared = 0
    elif declared is None:
        declared = int(tokens.length[0])  # all images must have the same number
    wrong = tokens.length > declared if spec.variable else tokens.length != declared
    if wrong.any():
        at = int(wrong.nonzero()[0])
        remedy = "; declare a number that varies with variable=True" if tokens.length[at] < declared else ""
        raise AdapterError(
            f"{spec.name}: {names[at]}: encode returned {int(tokens.length[at])} tokens for the image, but its spec "
            f"declares {declared}{remedy}"
        )


def _check_bits(tokens: Tokens, spec: TokenizerSpec, names: Sequence[str]) -> None:
    """Check the bits of each image against its streams: log2(codebook) bits per index, 16 per float16 value, 8 per
    byte. Where the number of tokens varies, an image must cost at least the bits of the tokens that count."""
    if spec.variable:
        minimum = tokens.length.double() * (spec.bits_per_token or 0)
        wrong, expected = tokens.bits < minimum * (1 - _CLOSE), minimum
    else:
        expected = sum(
            (_bits_of(stream) for stream in tokens.streams.values()), torch.zeros(len(tokens), dtype=torch.float64)
        )
        wrong = ~torch.isclose(tokens.bits.double(), expected, rtol=_CLOSE, atol=1e-9)
    bits = spec.bits_per_token
    if wrong.any():
        at = int(wrong.nonzero()[0])
        raise AdapterError(
            f"{spec.name}: {names[at]}: its tokens declare {float(tokens.bits[at]):,.6g} bits, but they hold "
            f"{float(expected[at]):,.6g}"
        )
    if bits is not None and not spec.variable and len(set(spec.codebook.values())) < 2:
        declared = tokens.length.double() * bits
        if (wrong := ~torch.isclose(expected, declared, rtol=_CLOSE, atol=1e-9)).any():
            at = int(wrong.nonzero()[0])
            raise AdapterError(
                f"{spec.name}: {names[at]}: {int(tokens.length[at])} tokens hold {float(expected[at]):,.6g} bits, but "
                f"its spec declares bits_per_token={bits:g}, which gives {float(declared[at]):,.6g}"
            )


def _bits_of(stream: TokenStream) -> Tensor:
    """Return the bits (B,) that a stream holds for each image."""
    if isinstance(stream.data, tuple):
        return torch.tensor([8.0 * len(file) for file in stream.data], dtype=torch.float64)
    values = stream.data[0].numel() if len(stream.data) else 0
    each = {"index": math.log2(stream.codebook_size or 1), "latent": float(VALUE_BITS), "bytes": 8.0}[stream.kind]
    return torch.full((len(stream.data),), values * each, dtype=torch.float64)


def check_samples(images: Tensor, count: int, model: ImageModel, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest value of each sample, (B,) each.

    Raises AdapterError if the decoded images are not `count` finite RGB images in the spec's range.
    """
    if not isinstance(images, Tensor) or images.dim() != 4 or images.shape[:2] != (count, 3):
        given = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise AdapterError(f"{model.spec.name}: decode returned {given} for {count} samples, starting at {names[0]}")
    return check_images(images, images, model, names)


def check_images(
    images: Tensor, like: Tensor, model: ImageModel, names: Sequence[str], in_range: bool = True
) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest value of each image, (B,) each.

    like: the images (B, 3, H, W) that were encoded. in_range: whether values must lie near the spec's range. Raises
    AdapterError that names an image if decoded images are not finite floats with the shape and on the device of
    `like`, or lie far outside the range although `in_range` is set.
    """
    name, (low, high) = model.spec.name, model.spec.range
    if not isinstance(images, Tensor) or images.shape != like.shape:
        given = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise AdapterError(f"{name}: decode returned {given} for images {tuple(like.shape)}, starting at {names[0]}")
    if not images.is_floating_point():
        raise AdapterError(
            f"{name}: decode returned {images.dtype}, not floats from {low:g} to {high:g}, starting at {names[0]}"
        )
    if isinstance(model, Tokenizer) and images.device.type != like.device.type:
        raise AdapterError(f"{name}: decode returned images on {images.device}, but its tokens are on {like.device}")
    least, most = images.flatten(1).aminmax(dim=1)  # both are NaN if any pixel is NaN
    if (broken := ~(torch.isfinite(least) & torch.isfinite(most))).any():
        raise AdapterError(f"{name}: {names[int(broken.nonzero()[0])]}: decode returned NaN or infinite pixels")
    margin = _MAX_OVERSHOOT * (high - low)
    if not in_range or ((least >= low - margin).all() and (most <= high + margin).all()):
        return least, most
    outside = ((images < low - margin) | (images > high + margin)).flatten(1).float().mean(1)
    if (broken := outside > _MAX_SHARE).any():
        at = int(broken.nonzero()[0])
        raise AdapterError(
            f"{name}: {names[at]}: decode returned values from {float(images[at].min()):g} to "
            f"{float(images[at].max()):g}, but its spec declares the range {low:g} to {high:g}"
        )
    return least, most
