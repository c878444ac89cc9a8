"""teacher: a small transformer classifier whose features replace those of DINOv2 and CLIP in trainings."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.errors import DataError
from tokbench.nn.trainable import Trainable, TrainingBatch
from tokbench.nn.vit import Patches, Shape, Transformer
from tokbench.tokenizers.config import AdapterConfig


class Teacher(Trainable):
    """A network of patch features (B, N, width), trained to classify their mean into `classes` classes."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.patches = Patches(shape)
        self.body = Transformer(shape.width, shape.depth, shape.heads)
        self.head = nn.Linear(shape.width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) in [-1, 1] to features (B, N, width)."""
        return self.body(self.patches(images))

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        if batch.labels is None:
            raise DataError("training the teacher needs labels, and this dataset has none")
        logits = self.head(self(batch.images).mean(1))
        return {"classes": F.cross_entropy(logits.float(), batch.labels, label_smoothing=0.1)}


def model(variant: AdapterConfig) -> Teacher:
    """Build the untrained model that a TOML file describes."""
    given = variant.config["model"]
    return Teacher(Shape(**given["shape"]), given["classes"])
