"""PairedImages through encode, a step, and decode: what every task does but that of generators."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tokbench.data.stream import CHUNK, PairedBatch
from tokbench.evaluation.seeds import image_seeds
from tokbench.evaluation.steps import StepOutput, TokenTransform
from tokbench.metrics.batch import Batch, DerivedCache, Timing
from tokbench.timing import measure_peak_memory
from tokbench.tokenizers.base import ImageModel
from tokbench.tokenizers.contract import TRIED, check_images
from tokbench.tokenizers.decoded import DecodedValues
from tokbench.tokenizers.tiling import fit
from tokbench.tokenizers.tokens import Tokens


@dataclass(frozen=True)
class RunSettings:
    """How a model is run: the images that it takes at once (`batch_size`), the run's `seed`, and on which `device`.

    watch_memory: measure the peak. try_first: also make the checks that are too costly for every batch
    (`tokbench.tokenizers.contract`).
    """

    device: str
    batch_size: int
    seed: int = 0
    watch_memory: bool = False
    try_first: bool = False


@torch.inference_mode()
def reconstruct(
    model: ImageModel, images: PairedBatch, step: TokenTransform, settings: RunSettings, memo: DerivedCache
) -> Batch:
    """One batch through a step, its output clamped to [0, 1].

    `memo` keeps what is made of the references for the other adapters of this pass.
    Raises AdapterError where the tokenizer breaks its contract.
    """
    low, high = model.spec.range
    references, device, batch_size = images.reference, settings.device, settings.batch_size
    plan = fit(model.spec, references.shape[2], references.shape[3])
    tiles = plan.cut(references)
    names = [name for name in images.names for _ in range(plan.tiles)]
    seeds = image_seeds(settings.seed, images.index.tolist(), plan.tiles)
    values = DecodedValues(model.spec.range, int((images.index < CHUNK).sum()) * plan.tiles) if step.checked else None

    def run() -> tuple[list[StepOutput], list[Tensor]]:
        outputs, pieces = [], []
        for start in range(0, len(tiles), batch_size):
            here = slice(start, start + batch_size)
            part = tiles[here].to(device, copy=True).mul_(high - low).add_(low)
            made = step.run(model, part, names[here], seeds[here], memo, device)
            extremes = check_images(made.decoded, part, model, names[here], step.in_range)
            pieces.append(_finish(made.decoded, model, extremes, tiles[here], values))
            outputs.append(replace(made, decoded=pieces[-1][:0]))
        return outputs, pieces

    if settings.try_first:
        some = tiles[: min(TRIED, batch_size)].to(device, copy=True) * (high - low) + low
        step.try_out(model, some, names, seeds[: len(some)])
    (outputs, pieces), peak = measure_peak_memory(run, device) if settings.watch_memory else (run(), None)
    image = plan.join(torch.cat(pieces))
    tokens = [made.tokens for made in outputs if made.tokens is not None]
    encoding, decoding = sum(made.encoding for made in outputs), sum(made.decoding for made in outputs)
    if images.levels is not None:  # rounding them again would change nothing
        memo.levels["nearest"], memo.rounded["nearest"] = images.levels, references
    return Batch(
        images.index,
        references,
        image,
        Tokens.cat(tokens).merge_tiles(plan.tiles) if tokens else None,
        Timing(encoding, decoding, peak, batch_size) if tokens else None,
        images.original,
        images.digests or None,
        marked=images.marked,
        decoded=values.columns(plan.tiles) if values else None,
        reference_memo=memo,
        image_memo=memo
        if torch.equal(image, references)
        else DerivedCache(),  # exact images need no second forward pass
    )


def _finish(
    images: Tensor,
    model: ImageModel,
    extremes: tuple[Tensor, Tensor],
    reference: Tensor,
    values: DecodedValues | None,
) -> Tensor:
    """Decoded images from the spec's range to float32 in [0, 1], clamped, on the CPU; `values` sees them before."""
    if values is not None:
        values.add(images, extremes, reference)
    low, high = model.spec.range
    return images.float().sub(low).div_(high - low).clamp_(0, 1).cpu()
