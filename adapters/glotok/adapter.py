"""glotok: codebooks with a prescribed distribution of similarities, and residual modules (GloTok, AAAI 2026)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn

from tokbench.nn.conv import ConvDecoder, ConvEncoder, Residual, channels_first
from tokbench.nn.quantizers.product import ProductVQ
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.shortcut import PatchShortcut
from tokbench.nn.teacher import SemanticTeacher
from tokbench.nn.tokenizer import BottleneckAutoencoder, LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch, TrainingData
from tokbench.nn.vit import Block, initialise, sincos_positions
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained

SIDE, WIDTH = 8, 64

BINS = 40
"""Number of bins of the histograms of cosine similarities, evenly spaced from -1 to 1."""

SHARPNESS = 0.5 * ((BINS - 1) / 2) ** 2
"""Factor on the squared distance to a bin's centre; the standard deviation of a pair's weights is one bin."""

ROWS = 256
"""Number of codebook entries, drawn at random, that enter the histogram of a training step."""

FEATURES = 65_536
"""Number of the teacher's features that are clustered."""


def histogram(rows: Tensor) -> Tensor:
    """Return the soft histogram (BINS,) of the cosine similarities of all pairs of rows (K, d); its sum is 1."""
    unit = F.normalize(rows.float(), dim=1)
    first, second = torch.triu_indices(len(rows), len(rows), offset=1)
    similarities = (unit[first] * unit[second]).sum(1)
    centres = torch.linspace(-1, 1, BINS, device=rows.device)
    weights = (-SHARPNESS * (similarities[:, None] - centres).square()).exp().sum(0)
    return weights / weights.sum()


class ResidualModule(nn.Module):
    """Predicts from the quantized vectors (B, N, dim) of a codebook what quantization has removed, zero at first."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embed, self.positions = nn.Linear(dim, WIDTH), sincos_positions(SIDE, WIDTH)
        self.block, self.head = Block(WIDTH, 4), nn.Linear(WIDTH, dim)
        self.apply(initialise)
        nn.init.zeros_(self.head.weight)

    def forward(self, vectors: Tensor) -> Tensor:
        return self.head(self.block(self.embed(vectors) + self.positions))


class GloTok(BottleneckAutoencoder):
    """A convolutional autoencoder with a semantic and a visual codebook.

    relation: weight of the histogram loss, the Kullback-Leibler divergence of the semantic codebook's histogram from
    that of the centres of a teacher's features. residual: weight of the residual modules' loss; 0 for no modules.
    widths, stem: see `ConvEncoder`.
    """

    def __init__(
        self, quantizer: ProductVQ, relation: float, residual: float, widths: Sequence[int], stem: int
    ) -> None:
        super().__init__()
        self.size, self.tokens = 8 * SIDE, SIDE * SIDE
        self.relation, self.residual = relation, residual
        self.target: Tensor | None = None
        self.trunk, self.bottleneck = ConvEncoder(widths[-1], widths, stem), quantizer
        each = quantizer.dim // quantizer.groups
        made = [(Residual(widths[-1]), nn.Conv2d(widths[-1], each, 1)) for _ in range(quantizer.groups)]
        self.branches = nn.ModuleList(nn.Sequential(*layers) for layers in made)
        self.decoder = ConvDecoder(quantizer.dim, widths, stem)
        heads = [head for _, head in made]
        self.add_shortcut(PatchShortcut(quantizer, 8, grid=False), *heads, self.decoder.head[-1])
        self.restorers = nn.ModuleList(ResidualModule(each) for _ in range(quantizer.groups if residual else 0))

    def prepare_data(
        self, data: TrainingData, device: str, mirrored: bool, progress: Callable[[int, int], None]
    ) -> TrainingData:
        if self.relation:
            features = SemanticTeacher(SIDE).features_of(data, device, progress).features
            assert features is not None
            rows = features.flatten(0, 1)
            rows = rows[:: math.ceil(len(rows) / FEATURES)].float()
            count = min(self.bottleneck.codebook_size, len(rows))  # type: ignore[union-attr]
            clustered = MiniBatchKMeans(count, batch_size=4096, n_init=1, max_iter=20, random_state=0).fit(rows.numpy())
            self.target = histogram(torch.from_numpy(clustered.cluster_centers_)).to(device)
        return replace(data, features=None)

    def encoded(self, images: Tensor) -> Tensor:
        features = self.trunk(images)
        return torch.cat([branch(features) for branch in self.branches], 1).flatten(2).transpose(1, 2)

    def restored(self, vectors: Tensor) -> Tensor:
        """Add the residual modules' predictions to the vectors (B, N, D) of the codes."""
        if not self.residual:
            return vectors
        assert isinstance(self.bottleneck, ProductVQ)
        parts = zip(self.restorers, self.bottleneck.split(vectors), strict=True)
        return vectors + torch.cat([module(part) for module, part in parts], 2)

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        return self.decoder(channels_first(vectors.unflatten(1, (SIDE, SIDE))))

    def pixels(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        return super().pixels(self.restored(vectors), seeds)

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        latents = self.latents(batch.images)
        vectors, own = self.squeeze(latents, progress)
        restored = self.restored(vectors)
        terms = self.compare(super().pixels(restored), batch.images, progress) | {"bottleneck": own}
        if self.residual:
            terms["residual"] = self.residual * F.mse_loss(restored.float(), latents.detach().float())
        if self.relation:
            assert self.target is not None, "prepare_data computes the teacher's histogram"
            assert isinstance(self.bottleneck, ProductVQ) and isinstance(self.bottleneck.parts[0], VectorQuantizer)
            codebook = self.bottleneck.parts[0].codebook
            found = histogram(codebook[torch.randperm(len(codebook), device=codebook.device)[:ROWS]])
            divergence = F.kl_div(found.clamp_min(1e-12).log(), self.target, reduction="sum")
            terms["relation"] = self.relation * divergence
        return terms


def model(variant: AdapterConfig) -> GloTok:
    """Build the untrained model that a TOML file describes."""
    given = dict(variant.config["model"])
    return GloTok(ProductVQ(**given.pop("quantizer")), **given)


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
