"""Autoencoders whose tokens also carry the features of a frozen teacher."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.losses import cosine
from tokbench.nn.quantizers.quantizer import Quantizer
from tokbench.nn.shortcut import PatchShortcut, start_bottleneck
from tokbench.nn.teacher import CHANNELS, DIM, SemanticTeacher
from tokbench.nn.tokenizer import BottleneckAutoencoder
from tokbench.nn.trainable import TrainingBatch, TrainingData
from tokbench.nn.vit import Transformer, sincos_positions

_CHUNK = 256
"""Number of images whose latents are computed at a time before the training."""


class FrozenTeacher(nn.Module):
    """The projected features of `SemanticTeacher` as an input of an encoder.

    The projection is fitted before the training and stored with the model; the network is not, since it belongs to the
    model's `bases`.
    """

    mean: Tensor
    directions: Tensor

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side
        self.register_buffer("mean", torch.zeros(CHANNELS))
        self.register_buffer("directions", torch.eye(CHANNELS, DIM))

    def network(self) -> SemanticTeacher:
        """Return the frozen network. Raises MissingWeights if the package with its weights is not installed."""
        network = SemanticTeacher(self.side)
        network.prepare("cpu")
        return network

    def features_of(self, data: TrainingData, device: str, progress: Callable[[int, int], None]) -> TrainingData:
        """Fit the projection to the training set and return the set with the features of all images."""
        teacher = SemanticTeacher(self.side)
        prepared = teacher.features_of(data, device, progress)
        self.mean.copy_(teacher.mean)
        self.directions.copy_(teacher.directions)
        return prepared

    def forward(self, images: Tensor, network: nn.Module) -> Tensor:
        """Map images (B, 3, H, W) in [-1, 1] to features (B, side * side, DIM)."""
        assert isinstance(network, SemanticTeacher)
        return (network.stage(images / 2 + 0.5) - self.mean) @ self.directions


class FeatureTransformer(nn.Module):
    """A transformer of `depth` blocks over a grid of vectors (B, side * side, dim), with outputs (B, side * side, out).

    With the default `out`, it predicts a teacher's features.
    """

    def __init__(self, dim: int, side: int, depth: int, out: int = DIM, width: int = 64) -> None:
        super().__init__()
        self.embed, self.positions = nn.Linear(dim, width), sincos_positions(side, width)
        self.body, self.head = Transformer(width, depth, 4), nn.Linear(width, out)

    def forward(self, vectors: Tensor) -> Tensor:
        return self.head(self.body(self.embed(vectors) + self.positions))


class DualAutoencoder(BottleneckAutoencoder):
    """An autoencoder on a grid of tokens, whose vectors (B, side * side, D) have a pixel and a semantic part.

    The image is decoded from the first `pixel` values of a vector, a teacher's features from the others. With `pixel` 0
    or D there is one part, from which both are decoded. The linear maps, fitted before the training, are those of the
    pixel part; the first codebook is chosen from the latents of both.

    semantic: weight of the semantic loss, 1 - cosine similarity of a teacher's features and predicted ones; 0 for none.
    depth: number of blocks of the decoder of the features.
    """

    kept_out = ("semantic_decoder.",)

    def __init__(self, bottleneck: Quantizer, side: int, step: int, pixel: int, semantic: float, depth: int) -> None:
        super().__init__()
        self.size, self.step, self.tokens = side * step, step, bottleneck.positions or side * side
        self.bottleneck, self.side, self.pixel, self.semantic = bottleneck, side, pixel, semantic
        self.semantic_depth = depth
        self.split = 0 < pixel < bottleneck.dim
        self.pixel_dim = pixel if self.split else bottleneck.dim
        self.shortcut = PatchShortcut(bottleneck, step, grid=False)

    def pixel_part(self, vectors: Tensor) -> Tensor:
        """Return the values (B, N, pixel_dim) from which the image is decoded."""
        return vectors[..., : self.pixel_dim]

    def semantic_part(self, vectors: Tensor) -> Tensor:
        """Return the values (B, N, d) from which the teacher's features are decoded."""
        return vectors[..., self.pixel_dim :] if self.split else vectors

    def inputs(self, batch: TrainingBatch) -> Tensor:
        """Return the inputs of the bottleneck (B, N, D) for a training batch."""
        return self.latents(batch.images)

    def ready(self, device: str) -> None:
        super().ready(device)
        if self.semantic:
            dim = self.bottleneck.dim - self.pixel_dim if self.split else self.bottleneck.dim
            self.semantic_decoder = FeatureTransformer(dim, self.side, self.semantic_depth).to(device)

    def prepare_data(
        self, data: TrainingData, device: str, mirrored: bool, progress: Callable[[int, int], None]
    ) -> TrainingData:
        return SemanticTeacher(self.side).features_of(data, device, progress) if self.semantic else data

    @torch.no_grad()
    def start(self, batch: TrainingBatch) -> None:
        assert isinstance(self.shortcut, PatchShortcut) and isinstance(self.bottleneck, Quantizer)
        images, features = batch.images, batch.features
        if self.pixel:
            self.shortcut.fit_encoder(images, self.bottleneck, self.pixel if self.split else None)
        parts = [
            self.inputs(TrainingBatch(images[at], features=None if features is None else features[at]))
            for at in torch.arange(len(images)).split(_CHUNK)
        ]
        outputs = self.pixel_part(start_bottleneck(self.bottleneck, torch.cat(parts).float()))
        rest = self.bottleneck.dim - self.pixel_dim
        self.shortcut.fit_decoder(images, F.pad(outputs, (0, rest)).flatten(0, 1))

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        vectors, own = self.squeeze(self.inputs(batch), progress)
        terms = self.compare(self.pixels(vectors), batch.images, progress) | {"bottleneck": own}
        if self.semantic:
            assert batch.features is not None, "prepare_data adds the teacher's features"
            predicted = self.semantic_decoder(self.semantic_part(vectors))
            terms["semantic"] = self.semantic * cosine(predicted, batch.features)
        return terms
