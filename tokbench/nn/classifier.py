"""A trainable image classifier."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.errors import DataError
from tokbench.nn.augment import color_jitter, mixup_or_cutmix, random_resized_crop
from tokbench.nn.trainable import Trainable, TrainingBatch


class Classifier(Trainable):
    """A classifier of images (B, 3, H, W) in [-1, 1]; returns logits (B, classes).

    vit: any network with these inputs and outputs. augment: whether training applies random crops, color jitter and
    Mixup or CutMix. The loss is cross-entropy with label smoothing 0.1.
    """

    def __init__(self, vit: nn.Module, classes: int, augment: bool = True) -> None:
        super().__init__()
        self.vit, self.classes, self.augment = vit, classes, augment

    def forward(self, images: Tensor) -> Tensor:
        return self.vit(images)

    def prepared(self, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        """Return the augmented images and soft labels (B, classes) of a batch. Raises DataError if it has no labels."""
        if batch.labels is None:
            raise DataError("training a classifier needs labels, and this dataset has none")
        if not self.augment:
            return batch.images, F.one_hot(batch.labels, self.classes).float()
        return mixup_or_cutmix(color_jitter(random_resized_crop(batch.images)), batch.labels, self.classes)

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        images, labels = self.prepared(batch)
        return {"classes": F.cross_entropy(self(images).float(), labels, label_smoothing=0.1)}
