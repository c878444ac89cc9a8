"""A trainable image classifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.errors import DataError
from tokbench.nn.augment import color_jitter, mixup_or_cutmix, random_resized_crop
from tokbench.nn.teacher import CLASSES, with_teacher_logits
from tokbench.nn.trainable import Trainable, TrainingBatch, TrainingData


class Classifier(Trainable):
    """A classifier of images (B, 3, H, W) in [-1, 1]; returns logits (B, classes).

    vit: any network with these inputs and outputs. Training images are enlarged to its `patch_embed.img_size`, if it
    has one. The loss is cross-entropy with label smoothing 0.1. augment: whether training applies random crops, color
    jitter and Mixup or CutMix. distil: weight of the divergence from the class probabilities of a teacher
    (EfficientNet-Lite0, 1,000 classes), which a linear layer predicts from the pooled features of `vit`, a timm model.
    With it, crops keep at least 60 % of the area, since the teacher sees the whole image, and images are not mixed.
    """

    kept_out: tuple[str, ...] = ("imitation.",)

    def __init__(self, vit: nn.Module, classes: int, augment: bool = True, distil: float = 0.0) -> None:
        super().__init__()
        self.vit, self.classes, self.augment, self.distil = vit, classes, augment, distil

    def forward(self, images: Tensor) -> Tensor:
        return self.vit(images)

    def ready(self, device: str) -> None:
        if self.distil:
            vit: Any = self.vit
            self.imitation = nn.Linear(vit.num_features, CLASSES).to(device)

    def prepare_data(
        self, data: TrainingData, device: str, mirrored: bool, progress: Callable[[int, int], None]
    ) -> TrainingData:
        return with_teacher_logits(data, device, progress) if self.distil else data

    def enlarged(self, images: Tensor) -> Tensor:
        """Return images (B, 3, H, W) at the size that the network takes."""
        side = getattr(getattr(self.vit, "patch_embed", None), "img_size", images.shape[-2:])
        if tuple(side) == tuple(images.shape[-2:]):
            return images
        return F.interpolate(images, tuple(side), mode="bicubic", align_corners=False).clamp(-1, 1)

    def prepared(self, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        """Return the augmented images and soft labels (B, classes) of a batch. Raises DataError if it has no labels."""
        if batch.labels is None:
            raise DataError("training a classifier needs labels, and this dataset has none")
        if self.augment and not self.distil:
            cropped = color_jitter(random_resized_crop(self.enlarged(batch.images)))
            return mixup_or_cutmix(cropped, batch.labels, self.classes)
        images = batch.images
        if self.augment:
            images = color_jitter(random_resized_crop(images, least=0.6), strength=0.2)
        return self.enlarged(images), F.one_hot(batch.labels, self.classes).float()

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        images, labels = self.prepared(batch)
        if not self.distil:
            return {"classes": F.cross_entropy(self(images).float(), labels, label_smoothing=0.1)}
        assert batch.features is not None, "prepare_data adds the teacher's logits"
        vit: Any = self.vit
        pooled = vit.forward_head(vit.forward_features(images), pre_logits=True)
        teacher = batch.features[:, 0].softmax(1)
        divergence = F.kl_div(self.imitation(pooled).float().log_softmax(1), teacher, reduction="batchmean")
        terms = {"classes": F.cross_entropy(vit.head(pooled).float(), labels, label_smoothing=0.1)}
        return terms | {"teacher": self.distil * divergence}
