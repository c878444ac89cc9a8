"""A class-conditional transformer that regresses the next continuous token, as VL-GPT does (arXiv:2312.09251)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tokbench.nn.flow import seeded_noise
from tokbench.nn.masks import causal
from tokbench.nn.priors.prior import Prior, tokens_and_labels
from tokbench.nn.priors.sampling import apply_cfg, cfg_labels
from tokbench.nn.trainable import TrainingBatch, TrainingData
from tokbench.nn.vit import Past, Transformer, initialise, random_parameter
from tokbench.tokenizers.base import Tokenizer


class NextEmbedding(Prior):
    """A decoder-only transformer over sequences of N continuous tokens; the first input is the class.

    Tokens are standardised per position and channel with a mean and a standard deviation that are measured before the
    training and stored with the weights. The loss `next` is therefore the share of the tokens' variance that the
    prediction does not explain: 1 for a prediction of the mean. `sample` adds normal noise of the measured standard
    deviation of the error per position, times `noise`.
    """

    wants = "continuous"
    mean: Tensor
    deviation: Tensor
    error: Tensor

    def __init__(
        self,
        tokenizer: Tokenizer,
        size: int,
        classes: int,
        width: int = 192,
        depth: int = 5,
        heads: int = 6,
        noise: float = 1.0,
    ) -> None:
        super().__init__(tokenizer, size, classes)
        self.noise = noise
        self.label = random_parameter(classes + 1, width)
        self.embed, self.positions = nn.Linear(self.depth, width), random_parameter(self.count, width)
        self.body, self.head = Transformer(width, depth, heads), nn.Linear(width, self.depth)
        self.embed.apply(initialise)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("mask", causal(self.count), persistent=False)
        self.mask: Tensor
        self.register_buffer("mean", torch.zeros(self.count, self.depth))
        self.register_buffer("deviation", torch.ones(self.count, self.depth))
        self.register_buffer("error", torch.ones(self.count))

    def prepare_data(self, data: TrainingData, *rest: object) -> TrainingData:
        prepared = super().prepare_data(data, *rest)  # type: ignore[arg-type]
        assert prepared.tokens is not None
        values = prepared.tokens[0].float()
        self.mean.copy_(values.mean(0))
        self.deviation.copy_(values.std(0, correction=0).clamp(min=1e-3))
        return prepared

    def predict(self, labels: Tensor, rows: Tensor) -> Tensor:
        """Predict k + 1 standardised tokens (B, k + 1, C) from labels (B,) and the first k of them (B, k, C)."""
        inputs = torch.cat([self.label[labels][:, None], self.embed(rows)], 1)
        length = inputs.shape[1]
        return self.head(self.body(inputs + self.positions[:length], self.mask[:length, :length]))

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        rows, labels = tokens_and_labels(batch)
        target = (rows.float() - self.mean) / self.deviation
        predicted = self.predict(self.drop_labels(labels), target[:, :-1]).float()
        return {"next": (predicted - target).square().mean()}

    def finish(self, batch: TrainingBatch) -> None:
        """Measure the standard deviation of the error per position, for `sample`."""
        rows, labels = tokens_and_labels(batch)
        target = (rows.float() - self.mean) / self.deviation
        self.error.copy_((self.predict(labels, target[:, :-1]).float() - target).square().mean((0, 2)).sqrt())

    @torch.no_grad()
    def sample(self, labels: Tensor, seeds: Sequence[int], guidance: float) -> Tensor:
        noise = seeded_noise(seeds, (self.count, self.depth)).to(self.mean) * self.error[:, None] * self.noise
        all_labels = cfg_labels(labels, self.classes, guidance)
        copies = len(all_labels) // len(labels)
        rows, pasts = self.mean.new_zeros(len(labels), 0, self.depth), [Past() for _ in self.body.blocks]
        for position in range(self.count):
            last = self.label[all_labels] if not position else self.embed(rows[:, -1]).repeat(copies, 1)
            features = self.body((last + self.positions[position])[:, None], pasts=pasts)
            predicted = self.head(features[:, 0])
            if copies > 1:
                predicted = apply_cfg(predicted, guidance)
            rows = torch.cat([rows, (predicted + noise[:, position])[:, None]], 1)
        return rows * self.deviation + self.mean

    def num_function_evaluations(self, guidance: float) -> float:
        return 1.0 if guidance == 1 else 2.0
