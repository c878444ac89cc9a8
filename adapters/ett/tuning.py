"""Tuning of a tokenizer together with a captioner that reads its quantized vectors (arXiv:2505.10562)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from tokbench.data.vocabulary import decode_captions
from tokbench.errors import AdapterError, DataError
from tokbench.nn.autoencoders import ConvAutoencoder
from tokbench.nn.captioner import CaptionDecoder
from tokbench.nn.quantizers.ibq import IndexBackpropagation
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch, TrainingData
from tokbench.tokenizers.captioned import Captioner
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.tokens import Tokens
from tokbench.training.zoo import base, load_trained

Reads = Literal["vectors", "indices"]

ALIGNED, TUNED = 0.2, 0.8
"""The shares of the training at which the tokenizer starts and stops to be trained."""

SIDE = 8
"""Side of the grid of tokens of a training image."""


class Tuned(ConvAutoencoder):
    """An autoencoder and a captioner of its tokens.

    In the first and in the last stage of the training, only the captioner is trained; in between, both are, with the
    cross-entropy of the caption plus `weight` times the loss of the autoencoder. joint: whether the stage in between
    exists; otherwise the autoencoder stays as it is. reads: what the captioner reads, the quantized vectors, or vectors
    of its own that it learns for each index.
    """

    loss_checked_at = (1.0,)

    def __init__(
        self,
        quantizer: IndexBackpropagation,
        captioner: CaptionDecoder,
        reads: Reads,
        joint: bool,
        weight: float,
        widths: Sequence[int],
        stem: int,
        linear: bool,
    ) -> None:
        super().__init__(quantizer, widths, stem, linear)
        self.captioner, self.joint, self.weight = captioner, joint, weight
        self.rows = nn.Embedding(quantizer.codebook_size, quantizer.dim) if reads == "indices" else None

    def start(self, batch: TrainingBatch) -> None:
        return  # the weights are those of the base

    def prepare_data(
        self, data: TrainingData, device: str, mirrored: bool, progress: Callable[[int, int], None]
    ) -> TrainingData:
        if data.captions is None:
            raise DataError("training ETT needs captions; use a dataset that has them, such as --data scenes-train")
        return data

    def visual(self, vectors: Tensor, indices: Tensor) -> Tensor:
        """Return what the captioner reads, (B, N, D), of vectors (B, N, D) and their indices (B, N)."""
        return vectors if self.rows is None else self.rows(indices)

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        assert batch.captions is not None, "prepare_data requires captions"
        trained = self.joint and ALIGNED <= progress < TUNED
        with torch.set_grad_enabled(trained):
            latents = self.latents(batch.images)
            quantized = self.bottleneck(latents.flatten(1, -2))
        visual = self.visual(quantized.vectors, quantized.indices[..., 0])
        terms = {"caption": self.captioner.loss(visual, batch.captions)}
        if trained and self.weight:
            image = self.pixels(quantized.vectors.unflatten(1, latents.shape[1:-1]))
            own = self.compare(image, batch.images, 1.0) | {"bottleneck": quantized.loss}
            terms |= {name: self.weight * term for name, term in own.items()}
        return terms


class CaptioningTokenizer(Captioner, LearnedTokenizer):
    """The tokenizer of a `Tuned` model, which also writes captions."""

    model: Tuned

    def write_captions(self, tokens: Tokens) -> list[str]:
        """Return one caption per image. Raises AdapterError for images of another size than those of the training."""
        indices = tokens.tensor.flatten(1)
        if indices.shape[1] != SIDE**2:
            raise AdapterError(
                f"{self.spec.name}: its captioner reads {SIDE**2} tokens, those of an image of "
                f"{SIDE * self.model.step} px, not {indices.shape[1]}"
            )
        device = self.model.captioner.places.device
        visual = self.model.visual(self.vectors(tokens).flatten(1, -2).to(device), indices.to(device))
        return decode_captions(self.model.captioner.describe(visual))


def _untuned(variant: AdapterConfig) -> Tuned:
    given = dict(variant.config["model"])
    if given["reads"] not in get_args(Reads):
        raise AdapterError(f"{variant.name}: reads = {given['reads']!r}; give one of {', '.join(get_args(Reads))}")
    quantizer = IndexBackpropagation(**given.pop("quantizer"))
    captioner = CaptionDecoder(SIDE**2, quantizer.dim, **given.pop("captioner"))
    return Tuned(quantizer, captioner, **given)


def model(variant: AdapterConfig) -> Tuned:
    """Build the model before the tuning, with the weights of its base. Raises MissingWeights if the base has none."""
    tuned, before = _untuned(variant), base(variant, ConvAutoencoder)
    tuned.load_state_dict(tuned.state_dict() | before.state_dict())
    tuned.bases = {"before": before}
    return tuned


def load(variant: AdapterConfig, device: str) -> CaptioningTokenizer:
    """Load the tuned tokenizer; its base is not needed. Raises MissingWeights if it is not trained."""
    return CaptioningTokenizer(variant.name, load_trained(variant, _untuned(variant)))
