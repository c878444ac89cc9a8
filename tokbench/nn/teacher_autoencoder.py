"""Autoencoders whose encoder reads the features of the frozen teacher, which is a part of the tokenizer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from tokbench.nn.semantic import FrozenTeacher
from tokbench.nn.tokenizer import BottleneckAutoencoder
from tokbench.nn.trainable import TrainingBatch, TrainingData


class TeacherAutoencoder(BottleneckAutoencoder):
    """An autoencoder that encodes an image together with its teacher features on a grid of `side` x `side` positions.

    In training the features come from the batch, computed once for all images. In evaluation the teacher computes them,
    so it is one of the `bases`; the projection of its features is stored with the model. Raises MissingWeights if the
    package with the teacher's weights is not installed.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.teacher = FrozenTeacher(side)
        self.bases = {"teacher": self.teacher.network()}

    def prepare_data(
        self, data: TrainingData, device: str, mirrored: bool, progress: Callable[[int, int], None]
    ) -> TrainingData:
        return self.teacher.features_of(data, device, progress)

    @staticmethod
    def given(batch: TrainingBatch) -> Tensor:
        """Return the teacher features of a training batch, (B, side * side, DIM)."""
        assert batch.features is not None, "prepare_data adds the teacher's features"
        return batch.features

    def features(self, images: Tensor) -> Tensor:
        """Return the teacher features (B, side * side, DIM) of images (B, 3, H, W) in [-1, 1]."""
        with torch.no_grad():
            return self.teacher(images, self.bases["teacher"])

    @abstractmethod
    def latents_of(self, images: Tensor, features: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) and their teacher features to the inputs of the bottleneck (B, *position, D)."""

    def encoded(self, images: Tensor) -> Tensor:
        return self.latents_of(images, self.features(images))

    def latents(self, images: Tensor) -> Tensor:
        return self.encoded(images)
