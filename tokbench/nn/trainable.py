"""Base classes of the models that `tokbench.training.loop` trains, and the data that they are trained on."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tokbench.data.synthetic.raster import Box
from tokbench.nn.losses import Perceptual


@dataclass(frozen=True)
class TrainingData:
    """A training set.

    pixels: the items (N, ...), as uint8 levels or as float32 values in [0, 1]: images (N, 3, H, W) or data of another
    modality, such as waveforms (N, C, T). labels: int64 (N,), if the dataset has labels. tokens: (1, N, ...) tokens of
    the images, or (2, N, ...) with the tokens of the mirrored images second, if the model is built on another one.
    features: (N, P, D) on a square grid of P positions in row-major order, if there is a teacher. captions: int64
    (N, L), the numbers of the captions' words (`tokbench.data.vocabulary`), if the dataset has captions. boxes: float32
    (N, M, 5), the class, left, top, right and bottom edge of each object's box in shares of the side, if the dataset
    has boxes; rows of class -1 fill up images with fewer than M objects. masks: uint8 (N, T, H, W), the number of the
    object at each pixel of a clip, if the dataset has them.
    """

    pixels: Tensor
    labels: Tensor | None = None
    tokens: Tensor | None = None
    features: Tensor | None = None
    captions: Tensor | None = None
    boxes: Tensor | None = None
    masks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def has_images(self) -> bool:
        """Whether the items are images, which may be mirrored."""
        return self.pixels.dim() == 4

    def values(self, indices: Tensor, device: str) -> Tensor:
        """Return the items at `indices`, int64 (B,) on the device of `pixels`, as float32 (B, ...) in [-1, 1]."""
        chosen = self.pixels[indices].to(device, non_blocking=True)
        return chosen.float().div_(127.5 if chosen.dtype == torch.uint8 else 0.5).sub_(1)

    @property
    def sha256(self) -> str:
        """Hex SHA-256 digest of all pixels and labels, from which captions, boxes and masks follow."""
        digest = hashlib.sha256()
        for values in (self.pixels, self.labels):
            if values is not None:
                digest.update(np.ascontiguousarray(values.cpu().numpy()).data)  # no copy: it may be large
        return digest.hexdigest()


@dataclass(frozen=True)
class TrainingBatch:
    """The input of one training step.

    images: (B, 3, H, W), or items of another modality, in [-1, 1]. labels: int64 (B,), if the dataset has labels.
    tokens: (B, ...) from a frozen tokenizer. features: (B, P, D) from a teacher; those of a mirrored image are the
    mirrored features of the image. captions: int64 (B, L); in those of a mirrored image, `left` and `right` are
    exchanged. boxes: (B, M, 5); those of a mirrored image are mirrored. masks: uint8 (B, T, H, W).
    """

    images: Tensor
    labels: Tensor | None = None
    tokens: Tensor | None = None
    features: Tensor | None = None
    captions: Tensor | None = None
    boxes: Tensor | None = None
    masks: Tensor | None = None


def padded_boxes(boxes: Sequence[Sequence[Box]]) -> Tensor:
    """Return the boxes of N images as float32 (N, M, 5), filled up with rows of class -1 to the largest number."""
    padded = torch.full((len(boxes), max(map(len, boxes)), 5), -1.0)
    for row, own in zip(padded, boxes, strict=True):
        if own:
            row[: len(own)] = torch.tensor(own)
    return padded


class Trainable(nn.Module, ABC):
    """A model and its training loss.

    helpers: frozen networks used by the loss. bases: frozen models of other adapters that this model is built on. Both
    are plain dicts, so their parameters are neither trained nor stored with the model. kept_out: name prefixes of
    parameters that are trained but not stored. loss_checked_at: shares of the training at whose loss int8 weights are
    checked, for autoencoders whose reconstructions do not use all of their networks.
    """

    kept_out: tuple[str, ...] = ()
    loss_checked_at: tuple[float, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.helpers: dict[str, nn.Module] = {}
        self.bases: dict[str, nn.Module] = {}

    def ready(self, device: str) -> None:
        """Create the helper networks on `device`; called before the training.

        Raises MissingWeights if the weights of a helper network are not available.
        """
        return

    def start(self, batch: TrainingBatch) -> None:
        """Set initial weights from training images, for example by PCA; called once, before the first step.

        batch: `tokbench.training.loop.START` images, drawn at random, or all if there are fewer.
        """
        return

    def finish(self, batch: TrainingBatch) -> None:
        """Measure what the trained model needs in evaluation, such as thresholds; called once, after the last step.

        batch: as for `start`. The model has its final weights and is in evaluation mode.
        """
        return

    def prepare_data(
        self, data: TrainingData, device: str, mirrored: bool, progress: Callable[[int, int], None]
    ) -> TrainingData:
        """Return the training set with everything that the loss needs, such as tokens.

        mirrored: whether batches will include mirrored images. progress: called with the number of processed images
        and the total.
        """
        return data

    @abstractmethod
    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        """Return the weighted terms of the loss by name, scalars; training minimises their sum.

        progress: completed share of the training, 0 to 1, for schedules.
        """


class FittedModel(nn.Module, ABC):
    """A model whose parameters are statistics of images, computed in one pass without gradients."""

    @abstractmethod
    def fit(self, images: Iterator[Tensor]) -> None:
        """Compute the parameters from batches of images (B, 3, H, W) in [-1, 1]; each image occurs once."""


class Autoencoder(Trainable):
    """A reconstruction model, trained with a pixel loss and, from `perceptual_from` on, a perceptual loss."""

    perceptual = 0.1
    """Weight of the perceptual distance; the mean squared error of pixels in [-1, 1] has weight 1."""
    perceptual_from = 0.5
    """Share of the training after which the perceptual loss is used. A step without it takes about half as long."""

    def ready(self, device: str) -> None:
        if self.perceptual:
            self.helpers["perceptual"] = Perceptual(device)

    def perceptual_term(self, image: Tensor, reference: Tensor, progress: float) -> dict[str, Tensor]:
        """Return the weighted perceptual distance of images (B, 3, H, W) as a term; none where it is not used."""
        if not self.perceptual or progress < self.perceptual_from:
            return {}
        return {"perceptual": self.perceptual * self.helpers["perceptual"](image, reference)}

    def compare(self, image: Tensor, reference: Tensor, progress: float) -> dict[str, Tensor]:
        """Return the weighted reconstruction terms for images and references (B, 3, H, W) in [-1, 1]."""
        terms = {"pixels": (image.float() - reference).square().mean()}
        return terms | self.perceptual_term(image, reference, progress)
