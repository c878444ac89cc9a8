"""What `tokbench.training.loop` can train: a model that says what is to be minimised."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from tokbench.nn.gan import Adversary
from tokbench.nn.losses import Perceptual


@dataclass(frozen=True)
class TrainingData:
    """What is trained on: uint8 pixels (N, 3, H, W) and, where there are any, labels int64 (N,), and tokens (1, N, ...)
    of the images, or (2, N, ...) with those of the mirrored images."""

    pixels: Tensor
    labels: Tensor | None = None
    tokens: Tensor | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def sha256(self) -> str:
        """Over all pixels and labels."""
        digest = hashlib.sha256(self.pixels.cpu().numpy().tobytes())
        if self.labels is not None:
            digest.update(self.labels.cpu().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class TrainingBatch:
    """What a step learns from: images (B, 3, H, W) in [-1, 1] and, where there are any, labels int64 (B,) and tokens
    (B, ...) that a frozen tokenizer made of the images."""

    images: Tensor
    labels: Tensor | None = None
    tokens: Tensor | None = None


class Trainable(nn.Module, ABC):
    """A model and its loss.

    adversary: trained beside the model by an optimiser of its own and not stored with it. helpers: frozen
    networks that training looks through. bases: frozen models of other adapters that this one is built on. Both are
    plain dicts, so that they are neither trained nor stored with it. kept_out: how the names of parameters begin that
    are trained and not stored.
    """

    kept_out: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.adversary: Adversary | None = None
        self.helpers: dict[str, nn.Module] = {}
        self.bases: dict[str, nn.Module] = {}

    def ready(self, device: str, adversary: float) -> None:
        """Called once before training: make the helpers, and an adversary where its weight is not 0.

        Raises MissingWeights where a network is not here.
        """
        return

    def prepare_data(
        self, material: TrainingData, device: str, mirrored: bool, progress: Callable[[int, int], None]
    ) -> TrainingData:
        """What it is trained on, of what there is; `mirrored`: whether batches will hold mirrored images, too."""
        return material

    @abstractmethod
    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        """Weighted terms by name; their sum is what is minimised.

        `progress` runs from 0 to 1 over the whole training, for schedules.
        """


class FittedModel(nn.Module, ABC):
    """A model whose few numbers follow from images in one pass, without training by gradient."""

    @abstractmethod
    def fit(self, images: Iterator[Tensor]) -> None:
        """Images (B, 3, H, W) in [-1, 1], all of them once."""


class Autoencoder(Trainable):
    """A model that reconstructs, trained on pixels, on features of a frozen network and, if asked, against a critic."""

    perceptual = 0.1
    """Weight of the perceptual distance beside the mean squared error of pixels in [-1, 1]."""
    adversary_from = 0.6
    """Share of the training before the adversary has a say: it would only learn to tell blur from photos."""

    def ready(self, device: str, adversary: float) -> None:
        if self.perceptual:
            self.helpers["perceptual"] = Perceptual(device)
        if adversary:
            self.adversary = Adversary(adversary).to(device)

    def compare(self, image: Tensor, reference: Tensor, progress: float) -> dict[str, Tensor]:
        """The terms that say how far reconstructions are from their references."""
        terms = {"pixels": (image.float() - reference).square().mean()}
        if self.perceptual:
            terms["perceptual"] = self.perceptual * self.helpers["perceptual"](image, reference)
        if self.adversary and progress >= self.adversary_from:
            terms["adversary"] = self.adversary.against(image, reference)
        return terms
