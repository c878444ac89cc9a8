"""Tokenizers around models that were trained here: an encoder, a bottleneck, a decoder."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from tokbench.metric_names import Anchor
from tokbench.nn.perturb import BitPerturber, CodePerturber
from tokbench.nn.quantizers.bits import BernoulliBits
from tokbench.nn.quantizers.fsq import FSQ
from tokbench.nn.quantizers.kl import KL
from tokbench.nn.quantizers.lfq import LFQ
from tokbench.nn.quantizers.quantizer import Quantizer
from tokbench.nn.trainable import Autoencoder, TrainingBatch
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.perturb import Perturber
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens


class BottleneckAutoencoder(Autoencoder):
    """An autoencoder with `bottleneck` in its middle; its loss is reconstruction and what the bottleneck asks.

    size: the only image side that it takes, None for any multiple of `step`. tokens: an image's, None for one on each
    `step` x `step` px.
    """

    bottleneck: Quantizer | KL
    size: int | None = None
    tokens: int | None = None
    step: int = 8

    @abstractmethod
    def latents(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] to what enters the bottleneck, (B, *place, D)."""

    @abstractmethod
    def pixels(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """What leaves the bottleneck, (B, *place, D), to images. `seeds` for decoders that sample, None in training."""

    def squeeze(self, latents: Tensor, progress: float = 1.0) -> tuple[Tensor, Tensor]:
        """Latents through the bottleneck: the vectors, and what it adds to the loss, at a share of the training."""
        place = latents.shape[1:-1]
        row = latents.flatten(1, -2)
        if isinstance(self.bottleneck, Quantizer):
            quantized = self.bottleneck(row)
            if self.training and progress < self.bottleneck.used_from:
                return self.bottleneck.unquantized(row).unflatten(1, place), quantized.loss.detach() * 0
            return quantized.vectors.unflatten(1, place), quantized.loss
        vectors, loss = self.bottleneck(row)
        return vectors.unflatten(1, place), loss

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        vectors, own = self.squeeze(self.latents(batch.images), progress)
        return self.compare(self.pixels(vectors), batch.images, progress) | {"bottleneck": own}


class LearnedTokenizer(Tokenizer):
    """The tokenizer of a trained model: indices where its bottleneck is a quantizer, else the mean latents."""

    def __init__(
        self, name: str, model: BottleneckAutoencoder, *, prefixes: bool = False, variable: bool = False
    ) -> None:
        self.model = model
        self.module = nn.ModuleDict({"model": model, **model.bases}) if model.bases else model
        bottleneck, discrete = model.bottleneck, isinstance(model.bottleneck, Quantizer)
        bits = bottleneck.groups * math.log2(bottleneck.codebook_size) if isinstance(bottleneck, Quantizer) else 16.0
        self.spec = TokenizerSpec(
            name,
            kind="discrete" if discrete else "continuous",
            range=(-1.0, 1.0),
            multiple=model.step,
            size=model.size,
            downsample=model.step if model.tokens is None else None,
            num_tokens=model.tokens,
            codebook={"codes": bottleneck.codebook_size} if isinstance(bottleneck, Quantizer) else {},
            bits_per_token=bits if discrete else bits * bottleneck.dim,
            variable=variable,
            prefixes=prefixes,
        )

    def encode(self, images: Tensor) -> Tokens:
        """(B, 3, H, W) in [-1, 1] to indices (B, *place[, G]) or to float16 latents (B, *place, D)."""
        latents = self.model.latents(images)
        place = latents.shape[1:-1]
        row, bottleneck = latents.flatten(1, -2), self.model.bottleneck
        if isinstance(bottleneck, Quantizer):
            indices = bottleneck(row).indices.unflatten(1, place)
            return Tokens.from_indices(indices, bottleneck.codebook_size, groups=bottleneck.groups)
        return Tokens.from_latents(bottleneck(row)[0].unflatten(1, place), tokens=math.prod(place))

    def vectors(self, tokens: Tokens) -> Tensor:
        """What the decoder gets, (B, *place, D), from the tokens alone."""
        data, bottleneck = tokens.tensor, self.model.bottleneck
        if not isinstance(bottleneck, Quantizer):
            return data.float()
        place = data.shape[1:-1]
        return bottleneck.lookup(data.flatten(1, -2)).unflatten(1, place)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        return self.model.pixels(self.vectors(tokens), seeds)

    def perturber(self, anchor: Anchor) -> Perturber:
        """By its bottleneck: a plain codebook, one of the extensions, or noise. Raises NotApplicable."""
        bottleneck = self.model.bottleneck
        if not isinstance(bottleneck, Quantizer):
            return super().perturber(anchor)
        if isinstance(bottleneck, LFQ | BernoulliBits):
            return BitPerturber(self.spec.name, self.encode, self.model.latents, bottleneck, anchor)
        kind = "fsq" if isinstance(bottleneck, FSQ) else "grouped" if bottleneck.groups > 1 else "plain"
        return CodePerturber(self.encode, self.model.latents, bottleneck, anchor, kind)
