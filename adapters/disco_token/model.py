"""The tuned vectors, and their loss: a frozen classifier's cross-entropy of generated images."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.errors import AdapterError, DataError
from tokbench.nn.frozen_network import efficientnet
from tokbench.nn.priors.flow import Flow
from tokbench.nn.teacher import CLASS_SIDE
from tokbench.nn.tokenizer import BottleneckAutoencoder
from tokbench.nn.trainable import Trainable, TrainingBatch

SEEDS = 2**31


class DiscriminativeTokens(Trainable):
    """One vector per class (K, width) that is added to the class vector of a frozen flow.

    A step samples one image per label of the batch, from fresh noise, and classifies it with EfficientNet-Lite0 in its
    1,000 classes. The gradient passes through the classifier, the tokenizer's decoder and the last `differentiable`
    steps of the sampler; the steps before are computed without it. The batch's images are not used.

    autoencoder: the model whose latents the prior samples. outputs: the classifier's output of each class of the prior.
    steps: number of Euler steps of the sampler in training. Raises AdapterError if these do not fit the prior.
    """

    def __init__(
        self, prior: Flow, autoencoder: BottleneckAutoencoder, outputs: Sequence[int], steps: int, differentiable: int
    ) -> None:
        super().__init__()
        if len(outputs) != prior.classes:
            raise AdapterError(f"outputs has {len(outputs)} entries, but the prior has {prior.classes} classes")
        if not 1 <= differentiable <= steps:
            raise AdapterError(f"differentiable is {differentiable}; it must be 1 to the number of steps, {steps}")
        self.steps, self.differentiable = steps, differentiable
        self.bases = {"prior": prior, "autoencoder": autoencoder}
        self.register_buffer("outputs", torch.tensor(outputs), persistent=False)
        self.vectors = nn.Parameter(torch.zeros_like(prior.label))

    outputs: Tensor

    @property
    def prior(self) -> Flow:
        found = self.bases["prior"]
        assert isinstance(found, Flow)
        return found

    @property
    def autoencoder(self) -> BottleneckAutoencoder:
        found = self.bases["autoencoder"]
        assert isinstance(found, BottleneckAutoencoder)
        return found

    def ready(self, device: str) -> None:
        self.helpers["classifier"] = efficientnet(device)

    def condition(self, labels: Tensor) -> Tensor:
        """Return the condition vectors (B, width) of labels (B,)."""
        return self.prior.label[labels] + self.vectors[labels]

    def control(self, random: bool) -> Self:
        """Return a copy with vectors that are not tuned: 0, or random directions with the norms of the tuned ones."""
        other = copy.copy(self)
        other._parameters = dict(self._parameters)
        direction = torch.randn(self.vectors.shape, generator=torch.Generator().manual_seed(0)).to(self.vectors)
        norms = self.vectors.norm(dim=1, keepdim=True) if random else 0.0
        other.vectors = nn.Parameter(F.normalize(direction, dim=1) * norms)
        return other

    def generated(self, labels: Tensor, seeds: Sequence[int]) -> Tensor:
        """Return images (B, 3, H, W) in [0, 1] of labels (B,), with a gradient with respect to the vectors."""
        prior = self.prior
        rows = prior.sample_from(self.condition(labels), seeds, 1.0, self.steps, self.differentiable)
        return self.autoencoder.pixels(rows.reshape(len(rows), *prior.place, prior.depth), seeds).float() / 2 + 0.5

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        if batch.labels is None:
            raise DataError("tuning condition vectors needs the labels of classes; use a dataset with labels")
        images = self.generated(batch.labels, torch.randint(SEEDS, (len(batch.labels),)).tolist())
        larger = F.interpolate(images, CLASS_SIDE, mode="bicubic", antialias=True, align_corners=False)
        net: Any = self.helpers["classifier"]
        logits = net._fc(net((larger.clamp(0, 1) * 255 - 127) / 128))
        return {"classifier": F.cross_entropy(logits.float(), self.outputs[batch.labels])}
