"""What a tokenizer must not do, tried on the first images: tokens, shapes and values are checked on all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tokbench.errors import AdapterError
from tokbench.tokenizer import Reconstructor, Tokenizer
from tokbench.tokens import Tokens

TRIED = 4
"""Images on which the costly checks are made."""

_FAR, _SOME = 0.5, 0.1
"""Pixels further outside the range than this share of its width; the share of them in an image that is too many. Some
overshoot is every decoder's, and clamped; half a width in a tenth of the pixels is another range."""


@torch.inference_mode()
def try_out(model: Tokenizer, images: Tensor, names: Sequence[str], seeds: Sequence[int]) -> None:
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


def check_tokens(tokens: Tokens, part: Tensor, model: Reconstructor, names: Sequence[str]) -> None:
    """Raises AdapterError where the tokens of images `part` (B, 3, H, W) are not what the spec declares."""
    name = model.spec.name
    if not isinstance(tokens, Tokens):
        raise AdapterError(f"{name}: encode returned {type(tokens).__name__}, not Tokens")
    if len(tokens) != len(part):
        raise AdapterError(f"{name}: encode gave tokens of {len(tokens)} images for {len(part)}")
    declared = model.spec.tokens_at(part.shape[2], part.shape[3])
    if declared is not None and model.spec.kind != "codec" and int(tokens.length.max()) > declared:
        raise AdapterError(
            f"{name}: encode gave {int(tokens.length.max())} tokens an image, its spec declares {declared}"
        )
    for stream, size in model.spec.codebook.items():
        if stream not in tokens.streams or tokens.streams[stream].codebook_size != size:
            raise AdapterError(f"{name}: its spec declares stream '{stream}' of {size} codes, encode gave another")
    for key, made in tokens.streams.items():
        if made.kind == "index" and isinstance(made.data, Tensor) and made.codebook_size is not None:
            flat = made.data.flatten(1)
            if (wrong := ((flat < 0) | (flat >= made.codebook_size)).any(1)).any():
                at = int(wrong.nonzero()[0])
                raise AdapterError(
                    f"{name}: {names[at]}: stream '{key}' holds indices {int(flat[at].min())} to "
                    f"{int(flat[at].max())}, outside its codebook of {made.codebook_size}"
                )


def check_samples(
    images: Tensor, count: int, model: Reconstructor, names: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """The least and the largest value of each sample (B,). Raises AdapterError where what was decoded of `count` samples are not so many finite RGB images in range."""
    if not isinstance(images, Tensor) or images.dim() != 4 or images.shape[:2] != (count, 3):
        given = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise AdapterError(f"{model.spec.name}: decode gave {given} for {count} samples, from {names[0]} on")
    return check_images(images, images, model, names)


def check_images(
    images: Tensor, like: Tensor, model: Reconstructor, names: Sequence[str], in_range: bool = True
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
