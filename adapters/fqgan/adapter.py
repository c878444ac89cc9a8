"""fqgan: factorized quantization with a semantic and a visual codebook (Bai et al., FQGAN, arXiv:2411.16681)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from tokbench.nn.conv import ConvDecoder, ConvEncoder, channels_first
from tokbench.nn.losses import cosine
from tokbench.nn.quantizers.product import ProductVQ, disentangle
from tokbench.nn.tokenizer import BottleneckAutoencoder, LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import Block, Transformer, initialise, sincos_positions
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained, network

SIDE, TRUNK, WIDTH = 8, 128, 64


class Branch(nn.Module):
    """Maps features of the shared trunk (B, N, TRUNK) to the latents of one codebook (B, N, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embed, self.positions = nn.Linear(TRUNK, WIDTH), sincos_positions(SIDE, WIDTH)
        self.body, self.head = Transformer(WIDTH, 2, 4), nn.Linear(WIDTH, dim)

    def forward(self, features: Tensor) -> Tensor:
        return self.head(self.body(self.embed(features) + self.positions))


class Predictor(nn.Module):
    """Predicts a teacher's features (B, N, out) from the vectors of a codebook (B, N, dim)."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.embed, self.block, self.head = nn.Linear(dim, WIDTH), Block(WIDTH, 4), nn.Linear(WIDTH, out)
        self.apply(initialise)

    def forward(self, vectors: Tensor) -> Tensor:
        return self.head(self.block(self.embed(vectors)))


class FQGAN(BottleneckAutoencoder):
    """An autoencoder with a shared convolutional trunk, a branch and a codebook per sub-token, and a common decoder.

    apart: weight of the disentanglement loss, the squared cosine between the codes of a position. semantic: weight of
    the semantic loss, 1 - cosine similarity of a teacher's features and features predicted from the first code. The
    ablated model has 0 for both.
    """

    def __init__(self, quantizer: ProductVQ, apart: float, semantic: float, teacher: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.size, self.tokens = 8 * SIDE, SIDE * SIDE
        self.apart, self.semantic, self.teacher = apart, semantic, teacher
        self.trunk, self.bottleneck = ConvEncoder(TRUNK), quantizer
        each = quantizer.dim // quantizer.groups
        self.branches = nn.ModuleList(Branch(each) for _ in range(quantizer.groups))
        self.predictor, self.decoder = Predictor(each, 128), ConvDecoder(quantizer.dim)

    def ready(self, device: str) -> None:
        super().ready(device)
        if self.semantic:
            self.helpers["teacher"] = self.teacher().to(device)

    def encoded(self, images: Tensor) -> Tensor:
        features = self.trunk(images).flatten(2).transpose(1, 2)
        return torch.cat([branch(features) for branch in self.branches], 2).unflatten(1, (SIDE, SIDE))

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        return self.decoder(channels_first(vectors))

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        vectors, own = self.squeeze(self.latents(batch.images), progress)
        terms = self.compare(self.pixels(vectors), batch.images, progress) | {"bottleneck": own}
        assert isinstance(self.bottleneck, ProductVQ)
        parts = self.bottleneck.split(vectors.flatten(1, 2))
        if self.apart:
            terms["apart"] = self.apart * disentangle(parts)
        if self.semantic:
            with torch.no_grad():
                target = self.helpers["teacher"](batch.images)
            terms["semantic"] = self.semantic * cosine(self.predictor(parts[0]), target)
        return terms


def model(variant: AdapterConfig) -> FQGAN:
    """Build the untrained model that a TOML file describes."""
    given = variant.config["model"]
    return FQGAN(
        ProductVQ(**given["quantizer"]), given["apart"], given["semantic"], partial(network, variant, "teacher")
    )


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
