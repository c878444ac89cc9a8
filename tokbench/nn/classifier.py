"""A network that names classes, as something to be trained."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.errors import DataError
from tokbench.nn.augment import coloured, cropped, mixed
from tokbench.nn.trainable import Trainable, TrainingBatch


class Classifier(Trainable):
    """Images (B, 3, H, W) in [-1, 1] to logits (B, classes) by `vit`, any network that does so.

    augment: crops, colours and mixtures, or the images as they come. Labels are smoothed by 0.1.
    """

    def __init__(self, vit: nn.Module, classes: int, augment: bool = True) -> None:
        super().__init__()
        self.vit, self.classes, self.augment = vit, classes, augment

    def forward(self, images: Tensor) -> Tensor:
        return self.vit(images)

    def prepared(self, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        """Images and soft labels (B, classes) that a step learns from. Raises DataError where there are no labels."""
        if batch.labels is None:
            raise DataError("a classifier learns from labels, which this data set does not have")
        if not self.augment:
            return batch.images, F.one_hot(batch.labels, self.classes).float()
        return mixed(coloured(cropped(batch.images)), batch.labels, self.classes)

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        images, labels = self.prepared(batch)
        return {"classes": F.cross_entropy(self(images).float(), labels, label_smoothing=0.1)}
