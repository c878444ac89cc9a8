"""Tasks turn (tokenizer, images) into a stream of batches. Here: reconstruct, decode the tokens as encoded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from tokbench.batch import Batch, Memo, Timing
from tokbench.dataset import Images
from tokbench.errors import AdapterError
from tokbench.fit import fit
from tokbench.speed import timed, with_peak
from tokbench.tokenizer import ImageSource, Reconstructor, Tokenizer
from tokbench.tokens import Tokens


def image_seeds(seed: int, index: Sequence[int], per_image: int) -> list[int]:
    """One seed for every tile of every image, from the run's seed and the image's position alone."""

    def one(position: int, tile: int) -> int:
        return int.from_bytes(hashlib.sha256(f"{seed}/{position}/{tile}".encode()).digest()[:7], "big")

    return [one(position, tile) for position in index for tile in range(per_image)]


@torch.inference_mode()
def reconstruct(
    model: Reconstructor,
    images: Images,
    memo: Memo,
    *,
    device: str,
    batch_size: int,
    seed: int,
    watch_memory: bool = False,
) -> Batch:
    """One batch through encode and decode, its output clamped to [0, 1].

    `memo` keeps what is made of the references for the other adapters of this pass. `watch_memory` measures the peak.
    Raises AdapterError where the tokenizer breaks its contract.
    """
    low, high = model.spec.range
    plan = fit(model.spec, images.reference.shape[2], images.reference.shape[3])
    tiles = plan.cut(images.reference)
    names = [name for name in images.names for _ in range(plan.tiles)]
    seeds = image_seeds(seed, images.index.tolist(), plan.tiles)

    def run() -> tuple[list[Tokens], list[Tensor], float, float]:
        tokens, pieces, encoding, decoding = [], [], 0.0, 0.0
        for start in range(0, len(tiles), batch_size):
            here = slice(start, start + batch_size)
            part = tiles[here].to(device, copy=True) * (high - low) + low
            if isinstance(model, ImageSource):
                pieces.append(_finish(model.reconstruct(part, names[here]), part, model))
                continue
            assert isinstance(model, Tokenizer)
            encoded, seconds = timed(partial(model.encode, part), device)
            encoding += seconds
            _check_tokens(encoded, part, model)
            decoded, seconds = timed(partial(model.decode, encoded, seeds[here]), device)
            decoding += seconds
            pieces.append(_finish(decoded, part, model))
            tokens.append(encoded)
        return tokens, pieces, encoding, decoding

    (tokens, pieces, encoding, decoding), peak = with_peak(run, device) if watch_memory else (run(), None)
    image = plan.join(torch.cat(pieces))
    return Batch(
        images.index,
        images.reference,
        image,
        Tokens.cat(tokens).merged(plan.tiles) if tokens else None,
        Timing(encoding, decoding, peak) if tokens else None,
        images.original,
        reference_memo=memo,
        image_memo=memo if torch.equal(image, images.reference) else Memo(),  # exact images need no second forward pass
    )


def _check_tokens(tokens: Tokens, part: Tensor, model: Reconstructor) -> None:
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


def _finish(images: Tensor, like: Tensor, model: Reconstructor) -> Tensor:
    """Decoded images from the spec's range to float32 in [0, 1], clamped, on the CPU."""
    name = model.spec.name
    if not isinstance(images, Tensor) or images.shape != like.shape:
        given = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise AdapterError(f"{name}: decode gave {given} for images of {tuple(like.shape)}")
    if not torch.isfinite(images).all():
        raise AdapterError(f"{name}: decode gave NaN or infinite pixels")
    low, high = model.spec.range
    return ((images.float() - low) / (high - low)).clamp(0, 1).cpu()


TASKS = {"reconstruct": reconstruct}
"""Every task by name."""
