"""Images through encode, a step, and decode: what every task does but that of generators."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from tokbench.batch import Batch, Memo, Timing
from tokbench.contract import TRIED, check_images, check_kind, check_tokens
from tokbench.dataset import UNIT, Images
from tokbench.decoded import DecodedValues
from tokbench.errors import NotApplicable
from tokbench.fit import fit
from tokbench.speed import timed, with_peak
from tokbench.steps import AS_ENCODED, Step
from tokbench.tokenizer import Generator, ImageSource, Reconstructor, Tokenizer
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
    step: Step = AS_ENCODED,
    watch_memory: bool = False,
    try_first: bool = False,
) -> Batch:
    """One batch through encode, `step` and decode, its output clamped to [0, 1].

    `memo` keeps what is made of the references for the other adapters of this pass. `watch_memory` measures the peak;
    `try_first` makes those checks too that are too costly to make on every batch (`tokbench.contract`).
    Raises AdapterError where the tokenizer breaks its contract.
    """
    if isinstance(model, Generator):
        raise NotApplicable(f"{model.spec.name}: a generator reconstructs nothing; give --task generate")
    check_kind(model)
    low, high = model.spec.range
    plan = fit(model.spec, images.reference.shape[2], images.reference.shape[3])
    tiles = plan.cut(images.reference)
    names = [name for name in images.names for _ in range(plan.tiles)]
    seeds = image_seeds(seed, images.index.tolist(), plan.tiles)
    values = DecodedValues(model.spec.range, int((images.index < UNIT).sum()) * plan.tiles) if step.checked else None

    def run() -> tuple[list[Tokens], list[Tensor], float, float]:
        tokens, pieces, encoding, decoding = [], [], 0.0, 0.0
        for start in range(0, len(tiles), batch_size):
            here = slice(start, start + batch_size)
            part = tiles[here].to(device, copy=True).mul_(high - low).add_(low)
            if isinstance(model, ImageSource):
                decoded = model.reconstruct(part, names[here])
                extremes = check_images(decoded, part, model, names[here], step.in_range)
                pieces.append(_finish(decoded, model, extremes, tiles[here], values))
                continue
            assert isinstance(model, Tokenizer)
            encoded, seconds = timed(partial(step.tokens, model, part, seeds[here], memo), device)
            encoding += seconds
            check_tokens(encoded, part, model, names[here], step.whole)
            decoded, seconds = timed(partial(model.decode, encoded, seeds[here]), device)
            decoding += seconds
            extremes = check_images(decoded, part, model, names[here], step.in_range)
            pieces.append(_finish(decoded, model, extremes, tiles[here], values))
            tokens.append(encoded)
        return tokens, pieces, encoding, decoding

    if try_first and isinstance(model, Tokenizer):
        some = tiles[: min(TRIED, batch_size)].to(device, copy=True) * (high - low) + low
        step.try_out(model, some, names, seeds[: len(some)])
    (tokens, pieces, encoding, decoding), peak = with_peak(run, device) if watch_memory else (run(), None)
    image = plan.join(torch.cat(pieces))
    if images.levels is not None:  # rounding them again would change nothing
        memo.levels["nearest"], memo.rounded["nearest"] = images.levels, images.reference
    return Batch(
        images.index,
        images.reference,
        image,
        Tokens.cat(tokens).merged(plan.tiles) if tokens else None,
        Timing(encoding, decoding, peak, batch_size) if tokens else None,
        images.original,
        images.digests or None,
        marked=images.marked,
        decoded=values.columns(plan.tiles) if values else None,
        reference_memo=memo,
        image_memo=memo if torch.equal(image, images.reference) else Memo(),  # exact images need no second forward pass
    )


def _finish(
    images: Tensor,
    model: Reconstructor,
    extremes: tuple[Tensor, Tensor],
    reference: Tensor,
    values: DecodedValues | None,
) -> Tensor:
    """Decoded images from the spec's range to float32 in [0, 1], clamped, on the CPU; `values` sees them before."""
    if values is not None:
        values.add(images, extremes, reference)
    low, high = model.spec.range
    return images.float().sub(low).div_(high - low).clamp_(0, 1).cpu()
