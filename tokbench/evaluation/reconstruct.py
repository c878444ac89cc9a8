"""Reconstruct a batch of images: encode, transform the tokens, decode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tokbench.data.stream import CHUNK, PairedBatch
from tokbench.evaluation.seeds import image_seeds
from tokbench.evaluation.steps import StepOutput, TokenTransform
from tokbench.metrics.batch import Batch, DerivedCache, Timing
from tokbench.modalities.registry import MODALITIES
from tokbench.timing import measure_peak_memory
from tokbench.tokenizers.base import ImageModel
from tokbench.tokenizers.captioned import bind_captions
from tokbench.tokenizers.contract import NUM_PROBED, check_images
from tokbench.tokenizers.decoded import DecodedValues
from tokbench.tokenizers.tokens import Tokens


@dataclass(frozen=True)
class RunSettings:
    """How a model is run.

    device: where it runs. batch_size: images per model call. seed: the seed of the evaluation. measure_memory: whether
    the peak memory is measured. probe: whether the checks that are too costly for every batch run, too
    (`tokbench.tokenizers.contract`). advance: called after each model call with the finished share of the batch.
    """

    device: str
    batch_size: int
    seed: int = 0
    measure_memory: bool = False
    probe: bool = False
    advance: Callable[[float], None] = lambda share: None


@torch.inference_mode()
def reconstruct(
    model: ImageModel, images: PairedBatch, step: TokenTransform, settings: RunSettings, memo: DerivedCache
) -> Batch:
    """Run one batch through a token transform. The output is clamped to [0, 1].

    The model gets the degraded images if the protocol degrades them; everything is compared with the clean ones.
    memo: stores values derived from the references for the other adapters of this pass. Raises AdapterError where the
    tokenizer breaks its contract or needs captions that the images do not have.
    """
    low, high = model.spec.range
    references, device, batch_size = images.reference, settings.device, settings.batch_size
    plan = MODALITIES[images.modality].plan(model.spec, references.shape[1:])
    tiles = plan.cut(images.inputs)
    expected = tiles if images.degraded is None else plan.cut(references)
    names = [name for name in images.names for _ in range(plan.tiles)]
    captions = [caption for caption in images.captions for _ in range(plan.tiles)] if images.captions else None
    seeds = image_seeds(settings.seed, images.index.tolist(), plan.tiles)
    values = DecodedValues(model.spec.range, int((images.index < CHUNK).sum()) * plan.tiles) if step.checked else None

    def run() -> tuple[list[StepOutput], list[Tensor]]:
        outputs, pieces = [], []
        for start in range(0, len(tiles), batch_size):
            span = slice(start, start + batch_size)
            part = tiles[span].to(device, copy=True).mul_(high - low).add_(low)
            bound = bind_captions(model, captions[span] if captions else None)
            output = step.run(bound, part, names[span], seeds[span], memo, device)
            extremes = check_images(output.decoded, part, model, names[span], step.in_range)
            pieces.append(_finish(output.decoded, model, extremes, expected[span], values))
            outputs.append(replace(output, decoded=pieces[-1][:0]))
            settings.advance(min(start + batch_size, len(tiles)) / len(tiles))
        return outputs, pieces

    if settings.probe:
        first_tiles = tiles[: min(NUM_PROBED, batch_size)].to(device, copy=True) * (high - low) + low
        bound = bind_captions(model, captions[: len(first_tiles)] if captions else None)
        step.probe(bound, first_tiles, names, seeds[: len(first_tiles)])
    (outputs, pieces), peak = measure_peak_memory(run, device) if settings.measure_memory else (run(), None)
    image = plan.join(torch.cat(pieces))
    tokens = [output.tokens for output in outputs if output.tokens is not None]
    encoding, decoding = sum(output.encoding for output in outputs), sum(output.decoding for output in outputs)
    if images.levels is not None:  # the references are rounded already
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
        captions=images.captions,
        labels=images.labels,
        tiles=plan.tiles,
        extra=images.extra,
        degraded=images.degraded,
        reference_memo=memo,
        image_memo=memo
        if torch.equal(image, references)
        else DerivedCache(),  # identical images need no second forward pass
    )


def _finish(
    images: Tensor,
    model: ImageModel,
    extremes: tuple[Tensor, Tensor],
    reference: Tensor,
    values: DecodedValues | None,
) -> Tensor:
    """Convert decoded images from the spec's range to float32 in [0, 1], clamped, on the CPU. `values` measures them
    first."""
    if values is not None:
        values.add(images, extremes, reference)
    low, high = model.spec.range
    return images.float().sub(low).div_(high - low).clamp_(0, 1).cpu()
