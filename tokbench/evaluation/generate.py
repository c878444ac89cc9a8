"""Samples of a generator, or of a folder of them: what the task `generate` makes in place of reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tokbench.data.stream import ImageBatch
from tokbench.errors import AdapterError
from tokbench.evaluation.reconstruct import RunSettings
from tokbench.evaluation.seeds import image_seeds
from tokbench.evaluation.steps import TokenTransform
from tokbench.metrics.batch import Batch, Timing
from tokbench.timing import measure_peak_memory, timed
from tokbench.tokenizers.base import Generator, ImageModel
from tokbench.tokenizers.contract import check_samples, check_tokens
from tokbench.tokenizers.decoded import DecodedValues
from tokbench.tokenizers.tokens import Tokens


@dataclass(frozen=True)
class Sampled(TokenTransform):
    """One sample for each position of a batch, in place of a reconstruction."""

    def sample(self, model: Any, images: ImageBatch, settings: RunSettings) -> Batch:
        """The samples at some positions, clamped to [0, 1]. The batch has no references.

        Raises AdapterError where the model breaks its contract, or a file of samples cannot be read.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class ReadSamples(Sampled):
    """Samples that were made elsewhere, and are read from files."""

    @torch.inference_mode()
    def sample(self, model: Any, images: ImageBatch, settings: RunSettings) -> Batch:
        found = model.samples(images.index.tolist())
        _check_size(found, model, images)
        return Batch(images.index, image=found)


@dataclass(frozen=True, kw_only=True)
class DrawSamples(Sampled):
    """Tokens that a prior draws at a scale of guidance, decoded by its tokenizer.

    The position decides the class (position modulo classes, so all are equally frequent) and, with the seed, the noise.
    """

    guidance: float

    @property
    def told(self) -> dict[str, Any]:
        return {"guidance": self.guidance}

    @torch.inference_mode()
    def sample(self, model: Any, images: ImageBatch, settings: RunSettings) -> Batch:
        return _draw(model, images, self.guidance, settings)


def _draw(model: Generator, turn: ImageBatch, guidance: float, settings: RunSettings) -> Batch:
    # Two for each image: a decoder that draws noise must not draw the numbers from which its tokens were drawn.
    device, batch_size, seed = settings.device, settings.batch_size, settings.seed
    seeds = image_seeds(seed, turn.index.tolist(), 2)
    seeds, decoding_seeds = seeds[::2], seeds[1::2]
    labels = turn.index % model.classes
    values = DecodedValues(model.spec.range)
    if settings.try_first:
        _try_out(model, labels[:2].to(device), seeds[:2], guidance)

    def run() -> tuple[list[Tokens], list[Tensor], float, float]:
        tokens, images, sampling, decoding = [], [], 0.0, 0.0
        for start in range(0, len(turn.index), batch_size):
            here = slice(start, start + batch_size)
            drawn, seconds = timed(partial(model.sample, labels[here].to(device), seeds[here], guidance), device)
            sampling += seconds
            decoded, seconds = timed(partial(model.tokenizer.decode, drawn, decoding_seeds[here]), device)
            decoding += seconds
            values.add(decoded, check_samples(decoded, len(seeds[here]), model, turn.names[here]))
            _check_size(decoded, model, turn)
            check_tokens(drawn, decoded, model.tokenizer, turn.names[here])
            tokens.append(drawn)
            low, high = model.spec.range
            images.append(decoded.float().sub(low).div_(high - low).clamp_(0, 1).cpu())
        return tokens, images, sampling, decoding

    (tokens, images, sampling, decoding), peak = (
        measure_peak_memory(run, device) if settings.watch_memory else (run(), None)
    )
    return Batch(
        turn.index,
        image=torch.cat(images),
        tokens=Tokens.cat(tokens),
        timing=Timing(sampling, decoding, peak, batch_size, sampled=True),
        decoded=values.columns(1),
    )


def _check_size(samples: Tensor, model: ImageModel, turn: ImageBatch) -> None:
    height, width = samples.shape[2:]
    if turn.shape is not None and (height, width) != turn.shape:
        given = f"{turn.shape[1]}x{turn.shape[0]}"
        raise AdapterError(
            f"{model.spec.name}: samples are {width}x{height}, the references (of statistics alone, the first samples) "
            f"{given}; what networks make of them depends on that. Make all of one size, or give --size"
        )


def _try_out(model: Generator, labels: Tensor, seeds: Sequence[int], guidance: float) -> None:
    """Raises AdapterError where a sample depends on the others of its batch, or on what was drawn before."""
    if len(seeds) < 2:
        return
    together = model.sample(labels, seeds, guidance).select([1])
    alone = model.sample(labels[1:], seeds[1:], guidance)
    for name, stream in together.streams.items():
        ours, other = stream.data, alone.streams[name].data
        assert isinstance(ours, Tensor)
        assert isinstance(other, Tensor)
        if ours.shape != other.shape or torch.isclose(ours, other, atol=1e-2).float().mean() < 1 - _TURNED:
            raise AdapterError(
                f"{model.spec.name}: the sample of one label and seed is another one alone than beside others; draw "
                "each image's noise from its own seed"
            )


_TURNED = 0.25
"""Share of a sample's values that may differ between batch sizes: a rounding can turn one token, and then those after
it. It hardly ever does; indices of two values drawn anew agree in half of all places."""
