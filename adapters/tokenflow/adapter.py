"""tokenflow: a semantic and a pixel codebook that share one index (Qu et al., TokenFlow, arXiv:2412.03069)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tokbench.nn.conv import ConvDecoder, ConvEncoder, channels_first, channels_last, downsampling
from tokbench.nn.quantizers.quantizer import Quantizer
from tokbench.nn.quantizers.residual import MultiScaleVQ
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.semantic import DualAutoencoder, FeatureTransformer, FrozenTeacher
from tokbench.nn.teacher import DIM
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch, TrainingData
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained

SIDE = 8


class SemanticEncoder(FeatureTransformer):
    """Maps a teacher's features (B, N, DIM) to semantic latents (B, N, dim).

    They are the first components of the features, with mean square length `balance` squared, plus the output of `depth`
    transformer blocks, whose last layer starts at zero.
    """

    scale: Tensor

    def __init__(self, dim: int, depth: int, balance: float) -> None:
        super().__init__(DIM, SIDE, depth, dim)
        self.dim, self.balance = dim, balance
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)
        self.register_buffer("scale", torch.ones(()))

    def fit(self, features: Tensor) -> None:
        self.scale.copy_(self.balance * features[..., : self.dim].square().sum(-1).mean().rsqrt())

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) + self.scale * features[..., : self.dim]


class TokenFlow(DualAutoencoder):
    """A pixel encoder and a semantic encoder on the features of a frozen teacher, whose latents are quantized together.

    The codes of a token are one entry of a joint codebook, which holds the pixel code and the semantic code. With
    `pixel` 0 or all values, one of the encoders is left out. widths, stem: see `ConvAutoencoder`. depth: number of
    blocks of the semantic encoder. balance: factor on the first semantic latents; those of the pixels have unit mean
    square length, so the distance to the pixel code starts with the weight 1 / balance^2.
    """

    def __init__(
        self,
        quantizer: Quantizer,
        pixel: int,
        semantic: float,
        widths: Sequence[int],
        stem: int,
        depth: int,
        balance: float = 1.0,
    ) -> None:
        super().__init__(quantizer, SIDE, downsampling(widths, stem), pixel, semantic, depth=3)
        self.decoder = ConvDecoder(self.pixel_dim, widths, stem)
        heads: list[nn.Module] = [self.decoder.head[-1]]
        self.encoder = None
        if pixel:
            self.encoder = ConvEncoder(pixel, widths, stem)
            heads.append(self.encoder.head[-1])
        self.semantic_encoder = None
        if pixel < quantizer.dim:
            self.teacher = FrozenTeacher(SIDE)
            self.bases = {"teacher": self.teacher.network()}
            self.semantic_encoder = SemanticEncoder(quantizer.dim - pixel, depth, balance)
        assert self.shortcut is not None
        self.add_shortcut(self.shortcut, *heads)

    def prepare_data(
        self, data: TrainingData, device: str, mirrored: bool, progress: Callable[[int, int], None]
    ) -> TrainingData:
        if self.semantic_encoder is None:
            return super().prepare_data(data, device, mirrored, progress)
        return self.teacher.features_of(data, device, progress)

    @torch.no_grad()
    def start(self, batch: TrainingBatch) -> None:
        if self.semantic_encoder is not None:
            assert batch.features is not None, "prepare_data adds the teacher's features"
            self.semantic_encoder.fit(batch.features)
        super().start(batch)

    def encoded(self, images: Tensor) -> Tensor:
        features = None if self.semantic_encoder is None else self.teacher(images, self.bases["teacher"])
        return self._encoded(images, features)

    def _encoded(self, images: Tensor, features: Tensor | None) -> Tensor:
        parts = [] if self.encoder is None else [channels_last(self.encoder(images)).flatten(1, 2)]
        if self.semantic_encoder is not None:
            assert features is not None
            parts.append(self.semantic_encoder(features))
        return torch.cat(parts, 2)

    def inputs(self, batch: TrainingBatch) -> Tensor:
        assert self.shortcut is not None
        return self._encoded(batch.images, batch.features) + self.shortcut.latents(batch.images)

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        return self.decoder(channels_first(self.pixel_part(vectors).unflatten(1, (SIDE, SIDE))))


def model(variant: AdapterConfig) -> TokenFlow:
    """Build the untrained model that a TOML file describes; its codes are residual over scales if there are `sides`."""
    given = dict(variant.config["model"])
    quantizer = given.pop("quantizer")
    made = MultiScaleVQ(**quantizer) if "sides" in quantizer else VectorQuantizer(**quantizer)
    return TokenFlow(made, **given)


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained or the teacher's weights are missing."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
