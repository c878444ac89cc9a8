"""Samples of a generator, or of a folder of images: the outputs of the task `generate`."""

from __future__ import annotations

from abc import ABC, abstractmethod
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
from tokbench.tokenizers.base import Generator, ImageModel, PrecomputedImages
from tokbench.tokenizers.contract import check_samples, check_tokens
from tokbench.tokenizers.decoded import DecodedValues
from tokbench.tokenizers.tokens import Tokens


@dataclass(frozen=True)
class Sampled(TokenTransform, ABC):
    """A transform that returns one sample per position of a batch instead of a reconstruction."""

    @abstractmethod
    def sample(self, model: ImageModel, images: ImageBatch, settings: RunSettings) -> Batch:
        """Return the samples at the positions of `images`, clamped to [0, 1], in a batch without references.

        Raises AdapterError where the model breaks its contract, or a file of samples cannot be read.
        """


@dataclass(frozen=True)
class ReadSamples(Sampled):
    """Reads samples of another program from files."""

    @torch.inference_mode()
    def sample(self, model: ImageModel, images: ImageBatch, settings: RunSettings) -> Batch:
        assert isinstance(model, PrecomputedImages)
        samples = model.samples(images.index.tolist())
        _check_size(samples, model, images)
        return Batch(images.index, image=samples)


@dataclass(frozen=True, kw_only=True)
class DrawSamples(Sampled):
    """Draws tokens from a prior with classifier-free guidance, and decodes them with its tokenizer.

    The position determines the class (position modulo classes, so all classes are equally frequent) and, together with
    the seed, the noise.
    """

    guidance: float

    @property
    def recorded(self) -> dict[str, Any]:
        return {"guidance": self.guidance}

    @torch.inference_mode()
    def sample(self, model: ImageModel, images: ImageBatch, settings: RunSettings) -> Batch:
        assert isinstance(model, Generator)
        return _draw(model, images, self.guidance, settings)


def _draw(model: Generator, images_to_draw: ImageBatch, guidance: float, settings: RunSettings) -> Batch:
    # Each image has two seeds, since a decoder's noise must be independent of the noise from which tokens were drawn.
    device, batch_size, seed = settings.device, settings.batch_size, settings.seed
    seeds = image_seeds(seed, images_to_draw.index.tolist(), 2)
    seeds, decoding_seeds = seeds[::2], seeds[1::2]
    labels = images_to_draw.index % model.classes
    values = DecodedValues(model.spec.range)
    if settings.probe:
        _probe(model, labels[:2].to(device), seeds[:2], guidance)

    def run() -> tuple[list[Tokens], list[Tensor], float, float]:
        tokens, images, sampling, decoding = [], [], 0.0, 0.0
        for start in range(0, len(images_to_draw.index), batch_size):
            span = slice(start, start + batch_size)
            drawn, seconds = timed(partial(model.sample, labels[span].to(device), seeds[span], guidance), device)
            sampling += seconds
            decoded, seconds = timed(partial(model.tokenizer.decode, drawn, decoding_seeds[span]), device)
            decoding += seconds
            values.add(decoded, check_samples(decoded, len(seeds[span]), model, images_to_draw.names[span]))
            _check_size(decoded, model, images_to_draw)
            check_tokens(drawn, decoded, model.tokenizer, images_to_draw.names[span])
            tokens.append(drawn)
            low, high = model.spec.range
            images.append(decoded.float().sub(low).div_(high - low).clamp_(0, 1).cpu())
        return tokens, images, sampling, decoding

    (tokens, images, sampling, decoding), peak = (
        measure_peak_memory(run, device) if settings.measure_memory else (run(), None)
    )
    return Batch(
        images_to_draw.index,
        image=torch.cat(images),
        tokens=Tokens.cat(tokens),
        timing=Timing(sampling, decoding, peak, batch_size, sampled=True),
        decoded=values.columns(1),
        labels=labels,
    )


def _check_size(samples: Tensor, model: ImageModel, images: ImageBatch) -> None:
    height, width = samples.shape[2:]
    if images.shape is not None and (height, width) != images.shape:
        given = f"{images.shape[1]}x{images.shape[0]}"
        raise AdapterError(
            f"{model.spec.name}: samples are {width}x{height}, but the references (or, with a statistics file, the "
            f"first samples) are {given}, and features depend on the size; make all images one size, or give --size"
        )


def _probe(model: Generator, labels: Tensor, seeds: Sequence[int], guidance: float) -> None:
    """Raise AdapterError where a sample depends on the other samples of its batch, or on earlier calls."""
    if len(seeds) < 2:
        return
    together = model.sample(labels, seeds, guidance).select([1])
    alone = model.sample(labels[1:], seeds[1:], guidance)
    for name, stream in together.streams.items():
        ours, other = stream.data, alone.streams[name].data
        assert isinstance(ours, Tensor)
        assert isinstance(other, Tensor)
        if ours.shape != other.shape or torch.isclose(ours, other, atol=1e-2).float().mean() < 1 - _MAX_CHANGED:
            raise AdapterError(
                f"{model.spec.name}: the sample of one label and seed differs between a batch of one and a larger "
                "batch; draw each image's noise from its own seed"
            )


_MAX_CHANGED = 0.25
"""The share of a sample's values that may differ between batch sizes. Rounding can rarely change one token and then
those after it. Unrelated samples of binary tokens agree in half of all places."""
