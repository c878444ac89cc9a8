"""teacher: a small transformer that names classes; its features stand in for those of DINOv2 and CLIP."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.errors import DataError
from tokbench.nn.trainable import Trainable, TrainingBatch
from tokbench.nn.vit import Patches, Shape, Transformer
from tokbench.tokenizers.config import AdapterConfig


class Teacher(Trainable):
    """Features of patches (B, N, width); in training their mean over patches is told to name one of `classes`."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.patches = Patches(shape)
        self.body = Transformer(shape.width, shape.depth, shape.heads)
        self.head = nn.Linear(shape.width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] to features (B, N, width)."""
        return self.body(self.patches(images))

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        if batch.labels is None:
            raise DataError("the teacher learns from labels, which this data set does not have")
        named = self.head(self(batch.images).mean(1))
        return {"classes": F.cross_entropy(named.float(), batch.labels, label_smoothing=0.1)}


def model(variant: AdapterConfig) -> Teacher:
    given = variant.config["model"]
    return Teacher(Shape(**given["shape"]), given["classes"])
