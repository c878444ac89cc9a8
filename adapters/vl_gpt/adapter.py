"""vl_gpt: continuous causal tokens, and a transformer that regresses the next one (Zhu et al., arXiv:2312.09251)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.losses import cosine
from tokbench.nn.masks import causal_queries, patches_then_queries
from tokbench.nn.priors.prior import PriorGenerator
from tokbench.nn.priors.regression import NextEmbedding
from tokbench.nn.quantizers.kl import KL
from tokbench.nn.shortcut import ImageShortcut
from tokbench.nn.teacher import DIM
from tokbench.nn.teacher_autoencoder import TeacherAutoencoder
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import MaskDecoder, Pixels, Places, QueryEncoder, Shape
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import base_tokenizer, load_trained


class VLGPTTokenizer(TeacherAutoencoder):
    """Learned queries read a frozen teacher's features and become `count` continuous tokens of `dim` values.

    causal: whether a query attends to earlier queries only; otherwise to all (the ablation). semantic: weight of the
    cosine loss between the teacher's features and those predicted from the decoder's. linear: whether linear maps
    between images and tokens, fitted by PCA before the training, are added.
    """

    kept_out = ("predictor.",)

    def __init__(self, shape: Shape, count: int, dim: int, causal: bool, semantic: float, linear: bool) -> None:
        super().__init__(shape.side)
        self.size, self.step, self.tokens, self.semantic = shape.size, shape.patch, count, semantic
        self.bottleneck = KL(dim)
        mask = (causal_queries if causal else patches_then_queries)(shape.patches, count)
        self.encoder = QueryEncoder(shape, count, 2 * dim, mask, Places(DIM, shape))
        self.decoder, self.head = MaskDecoder(shape, count, dim), Pixels(shape)
        self.width = shape.width
        if linear:
            self.add_shortcut(ImageShortcut(self.bottleneck, count, shape.size), self.encoder.head, self.head.linear)

    def ready(self, device: str) -> None:
        super().ready(device)
        self.predictor = nn.Linear(self.width, DIM).to(device)

    def latents_of(self, images: Tensor, features: Tensor) -> Tensor:
        found = self.encoder(F.layer_norm(features, (DIM,)))
        return found if self.shortcut is None else found + self.shortcut.latents(images)

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        features = self.given(batch)
        vectors, own = self.squeeze(self.latents_of(batch.images, features), progress)
        decoded = self.decoder(vectors)
        terms = self.compare(self.head(decoded) + self.linear_pixels(vectors), batch.images, progress)
        return terms | {"bottleneck": own, "semantic": self.semantic * cosine(self.predictor(decoded), features)}

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        return self.head(self.decoder(vectors))


def model(variant: AdapterConfig) -> VLGPTTokenizer | NextEmbedding:
    """Build the untrained tokenizer, or the untrained prior over the TOML's `base` tokenizer.

    Raises MissingWeights if that is not trained.
    """
    given: dict[str, Any] = dict(variant.config["model"])
    if "base" in variant.config:
        return NextEmbedding(base_tokenizer(variant), **given)
    return VLGPTTokenizer(Shape(**given.pop("shape")), **given)


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer | PriorGenerator:
    """Load the trained tokenizer or prior. Raises MissingWeights if it, or the prior's tokenizer, is not trained."""
    trained = load_trained(variant, model(variant))
    if isinstance(trained, NextEmbedding):
        return PriorGenerator(variant.name, trained, variant.config["guidance"])
    return LearnedTokenizer(variant.name, trained)
