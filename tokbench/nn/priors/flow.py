"""A class-conditional rectified-flow transformer over sequences of continuous tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tokbench.errors import AdapterError
from tokbench.nn.flow import FlowDecoder, add_noise, logit_normal
from tokbench.nn.priors.prior import Prior, tokens_and_labels
from tokbench.nn.trainable import TrainingBatch, TrainingData
from tokbench.nn.vit import random_parameter
from tokbench.tokenizers.base import Tokenizer


class Flow(Prior):
    """A rectified flow (arXiv:2209.03003) from noise to latents, sampled in `steps` Euler steps of equal length.

    The class is one conditioning token. Latents are standardised per channel with a mean and a standard deviation that
    are measured before training and stored with the weights.
    """

    wants = "continuous"
    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        tokenizer: Tokenizer,
        size: int,
        classes: int,
        width: int = 192,
        depth: int = 5,
        heads: int = 6,
        steps: int = 25,
    ) -> None:
        super().__init__(tokenizer, size, classes)
        if steps < 1:
            raise AdapterError(f"steps is {steps}; it must be 1 or more")
        self.steps = steps
        self.label = random_parameter(classes, width)
        self.network = FlowDecoder(self.count, self.depth, 1, width, width, depth, heads, grid=len(self.place) == 2)
        self.register_buffer("mean", torch.zeros(self.depth))
        self.register_buffer("deviation", torch.ones(self.depth))

    def prepare_data(self, data: TrainingData, *rest: object) -> TrainingData:
        prepared = super().prepare_data(data, *rest)  # type: ignore[arg-type]
        assert prepared.tokens is not None
        values = prepared.tokens[0].float().flatten(0, 1)
        self.mean.copy_(values.mean(0))
        self.deviation.copy_(values.std(0).clamp(min=1e-3))
        return prepared

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        rows, labels = tokens_and_labels(batch)
        latents = (rows.float() - self.mean) / self.deviation
        time = logit_normal(len(rows), rows.device)
        noised, velocity = add_noise(latents, time)
        dropped = self.drop_labels(labels)
        keep = dropped < self.classes
        predicted = self.network(noised, time, self.label[dropped * keep][:, None], keep[:, None])
        return {"velocity": (predicted.float() - velocity).square().mean()}

    def sample(self, labels: Tensor, seeds: Sequence[int], guidance: float) -> Tensor:
        return self.sample_from(self.label[labels], seeds, guidance)

    def sample_from(
        self,
        condition: Tensor,
        seeds: Sequence[int],
        guidance: float,
        steps: int | None = None,
        differentiable: int = 0,
    ) -> Tensor:
        """Sample sequences (B, N, C) under condition vectors (B, width), which replace those of classes.

        steps: number of Euler steps; None for those of the prior. differentiable: number of last steps through which
        gradients flow to `condition`.
        """
        latents = self.network.sample(
            condition[:, None], seeds, steps or self.steps, guidance, differentiable=differentiable
        )
        return latents.float() * self.deviation + self.mean

    def num_function_evaluations(self, guidance: float) -> float:
        return self.steps * (1.0 if guidance == 1 else 2.0)
