"""What a tokenizer must not do, tried on the first images: tokens, shapes and values are checked on all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tokbench.errors import AdapterError
from tokbench.tokenizers.base import ImageModel, PrecomputedImages, Tokenizer
from tokbench.tokenizers.spec import KINDS, VALUE_BITS, TokenizerSpec
from tokbench.tokenizers.tokens import Tokens, TokenStream

TRIED = 4
"""Images on which the costly checks are made."""

_FAR, _SOME = 0.5, 0.1
"""Pixels further outside the range than this share of its width; the share of them in an image that is too many. Some
overshoot is every decoder's, and clamped; half a width in a tenth of the pixels is another range."""

_CLOSE = 1e-6
"""Relative difference up to which two numbers of bits are equal."""


def check_kind(model: ImageModel) -> None:
    """Raises AdapterError where the spec says that there are tokens and there are none, or the reverse."""
    spec = model.spec
    if isinstance(model, PrecomputedImages) != (spec.kind == "images"):
        what = (
            "a PrecomputedImages, which has no tokens"
            if isinstance(model, PrecomputedImages)
            else "no PrecomputedImages"
        )
        raise AdapterError(f"{spec.name}: its spec says kind '{spec.kind}', and it is {what}; make both agree")


@torch.inference_mode()
def probe(model: Tokenizer, images: Tensor, names: Sequence[str], seeds: Sequence[int]) -> None:
    """Encode and decode a few images (B, 3, H, W), in `spec.range` on the device, once more than needed.

    Raises AdapterError where `encode` writes into its input, or where `decode` gives images that follow not from the
    tokens but from what was encoded before.
    """
    name, given = model.spec.name, images.clone()
    tokens = model.encode(images)
    if not torch.equal(images, given):
        raise AdapterError(f"{name}: encode wrote into its input ({names[0]} and the rest of the batch); let it copy")
    check_tokens(tokens, given, model, names)
    decoded = model.decode(tokens, seeds)
    check_images(decoded, given, model, names)
    if len(images) < 2:
        return
    back = list(range(len(images)))[::-1]
    turned = model.decode(tokens.select(back), [seeds[p] for p in back])
    check_images(turned, given, model, [names[p] for p in back])
    # Turned round, the tokens must give the same images turned round, and not the same images as before.
    kept, followed = (float((turned - other).abs().mean()) for other in (decoded, decoded[back]))
    differ = float((given - given[back]).abs().mean()) > 0
    if differ and kept <= followed and not _same_tokens(tokens, back):
        raise AdapterError(
            f"{name}: decode does not look at its tokens: those of {names[0]} and the next images in another order "
            "gave the same images in the same order"
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
    """Raises AdapterError, naming an image, where the tokens of images `part` (B, 3, H, W) are not what the spec
    declares: their streams, number and bits. `whole`: they are all tokens of each image, and not the first ones."""
    name, spec = model.spec.name, model.spec
    if not isinstance(tokens, Tokens):
        raise AdapterError(f"{name}: encode returned {type(tokens).__name__}, not Tokens")
    if len(tokens) != len(part):
        raise AdapterError(f"{name}: encode gave tokens of {len(tokens)} images for {len(part)}")
    _check_streams(tokens, part, spec, names)
    if whole:
        _check_length(tokens, part, spec, names)
        _check_bits(tokens, spec, names)
    elif (declared := spec.tokens_at(part.shape[2], part.shape[3])) and int(tokens.length.max()) > declared:
        raise AdapterError(f"{name}: {int(tokens.length.max())} tokens of an image, its spec declares {declared}")


def _check_streams(tokens: Tokens, part: Tensor, spec: TokenizerSpec, names: Sequence[str]) -> None:
    for stream, size in spec.codebook.items():
        if stream not in tokens.streams or tokens.streams[stream].codebook_size != size:
            raise AdapterError(f"{spec.name}: its spec declares stream '{stream}' of {size} codes, encode gave another")
    for key, made in tokens.streams.items():
        if made.kind != KINDS[spec.kind]:
            raise AdapterError(
                f"{spec.name}: its spec says kind '{spec.kind}', and stream '{key}' of {names[0]} is of kind "
                f"'{made.kind}'; make both agree"
            )
        if made.kind != "index" or not isinstance(made.data, Tensor):
            continue
        if key not in spec.codebook:
            raise AdapterError(f"{spec.name}: encode gave the stream '{key}', which its spec's codebook does not name")
        if spec.groups not in (None, made.groups):
            raise AdapterError(
                f"{spec.name}: its spec says that {spec.groups} indices make a token, and in stream '{key}' of "
                f"{names[0]} {made.groups} do; give groups={made.groups}"
            )
        place = made.data.shape[1:-1] if made.groups > 1 else made.data.shape[1:]
        if spec.downsample is not None and spec.num_tokens is None and len(place) == 2:
            grid = tuple(side // spec.downsample for side in part.shape[2:])
            if tuple(place) != grid:
                raise AdapterError(
                    f"{spec.name}: {names[0]}: tokens on a grid of {place[0]}x{place[1]}, and its spec's "
                    f"downsample={spec.downsample} makes {grid[0]}x{grid[1]} of {part.shape[2]}x{part.shape[3]} px"
                )
        if made.codebook_size is not None:
            flat = made.data.flatten(1)
            if (wrong := ((flat < 0) | (flat >= made.codebook_size)).any(1)).any():
                at = int(wrong.nonzero()[0])
                raise AdapterError(
                    f"{spec.name}: {names[at]}: stream '{key}' holds indices {int(flat[at].min())} to "
                    f"{int(flat[at].max())}, outside its codebook of {made.codebook_size}"
                )


def _check_length(tokens: Tokens, part: Tensor, spec: TokenizerSpec, names: Sequence[str]) -> None:
    """A codec's bytes are no tokens, and every other image has as many as declared, or `variable` says that it has
    fewer."""
    declared = spec.tokens_at(part.shape[2], part.shape[3])
    if spec.kind == "codec":
        declared = 0
    elif declared is None:
        declared = int(tokens.length[0])  # then all images have the same number
    wrong = tokens.length > declared if spec.variable else tokens.length != declared
    if wrong.any():
        at = int(wrong.nonzero()[0])
        remedy = "; a number that varies is declared with variable=True" if tokens.length[at] < declared else ""
        raise AdapterError(
            f"{spec.name}: {names[at]}: encode gave {int(tokens.length[at])} tokens an image, its spec declares "
            f"{declared}{remedy}"
        )


def _check_bits(tokens: Tokens, spec: TokenizerSpec, names: Sequence[str]) -> None:
    """An image costs what its streams hold: indices of log2(codebook) bits, float16 values, bytes. Where the number of
    tokens varies, it costs at least those that count."""
    if spec.variable:
        least = tokens.length.double() * (spec.bits_per_token or 0)
        wrong, held = tokens.bits < least * (1 - _CLOSE), least
    else:
        held = sum((_held(stream) for stream in tokens.streams.values()), torch.zeros(len(tokens), dtype=torch.float64))
        wrong = ~torch.isclose(tokens.bits.double(), held, rtol=_CLOSE, atol=1e-9)
    bits = spec.bits_per_token
    if wrong.any():
        at = int(wrong.nonzero()[0])
        raise AdapterError(
            f"{spec.name}: {names[at]}: its tokens say that they take {float(tokens.bits[at]):,.6g} bits, and they "
            f"hold {float(held[at]):,.6g}"
        )
    if bits is not None and not spec.variable and len(set(spec.codebook.values())) < 2:
        declared = tokens.length.double() * bits
        if (wrong := ~torch.isclose(held, declared, rtol=_CLOSE, atol=1e-9)).any():
            at = int(wrong.nonzero()[0])
            raise AdapterError(
                f"{spec.name}: {names[at]}: {int(tokens.length[at])} tokens hold {float(held[at]):,.6g} bits, and its "
                f"spec declares bits_per_token={bits:g}, {float(declared[at]):,.6g} in all"
            )


def _held(stream: TokenStream) -> Tensor:
    """Bits (B,) of what a stream holds of each image."""
    if isinstance(stream.data, tuple):
        return torch.tensor([8.0 * len(file) for file in stream.data], dtype=torch.float64)
    values = stream.data[0].numel() if len(stream.data) else 0
    each = {"index": math.log2(stream.codebook_size or 1), "latent": float(VALUE_BITS), "bytes": 8.0}[stream.kind]
    return torch.full((len(stream.data),), values * each, dtype=torch.float64)


def check_samples(images: Tensor, count: int, model: ImageModel, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The least and the largest value of each sample (B,).

    Raises AdapterError where what was decoded of `count` samples are not so many finite RGB images in range.
    """
    if not isinstance(images, Tensor) or images.dim() != 4 or images.shape[:2] != (count, 3):
        given = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise AdapterError(f"{model.spec.name}: decode gave {given} for {count} samples, from {names[0]} on")
    return check_images(images, images, model, names)


def check_images(
    images: Tensor, like: Tensor, model: ImageModel, names: Sequence[str], in_range: bool = True
) -> tuple[Tensor, Tensor]:
    """The least and the largest value of each image (B,).

    Raises AdapterError, naming an image, where decoded images are not finite floats of the shape and on the device of
    `like`, or, where they must lie near the spec's range, lie far outside it.
    """
    name, (low, high) = model.spec.name, model.spec.range
    if not isinstance(images, Tensor) or images.shape != like.shape:
        given = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise AdapterError(f"{name}: decode gave {given} for images of {tuple(like.shape)}, from {names[0]} on")
    if not images.is_floating_point():
        raise AdapterError(f"{name}: decode gave {images.dtype}, not floats in {low:g} to {high:g}, from {names[0]} on")
    if isinstance(model, Tokenizer) and images.device.type != like.device.type:
        raise AdapterError(f"{name}: decode gave images on {images.device}, its tokens came from {like.device}")
    least, most = images.flatten(1).aminmax(dim=1)  # both are NaN where any pixel is
    if (broken := ~(torch.isfinite(least) & torch.isfinite(most))).any():
        raise AdapterError(f"{name}: {names[int(broken.nonzero()[0])]}: decode gave NaN or infinite pixels")
    reach = _FAR * (high - low)
    if not in_range or ((least >= low - reach).all() and (most <= high + reach).all()):
        return least, most
    outside = ((images < low - reach) | (images > high + reach)).flatten(1).float().mean(1)
    if (broken := outside > _SOME).any():
        at = int(broken.nonzero()[0])
        raise AdapterError(
            f"{name}: {names[at]}: decode gave values from {float(images[at].min()):g} to {float(images[at].max()):g}, "
            f"its spec declares the range {low:g} to {high:g}"
        )
    return least, most
