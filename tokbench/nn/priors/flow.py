"""A rectified-flow transformer over rows of continuous tokens, given the class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tokbench.errors import AdapterError
from tokbench.nn.flow import FlowDecoder, logit_normal, noised
from tokbench.nn.priors.prior import Prior, examples_of
from tokbench.nn.trainable import TrainingBatch, TrainingData
from tokbench.nn.vit import learned
from tokbench.tokenizers.base import Tokenizer


class Flow(Prior):
    """Noise to latents along straight lines, in `steps` equal Euler steps; the class is one token beside them.

    Latents are brought to mean 0 and deviation 1 a channel, by numbers that training measures once and that are kept
    with the weights.
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
            raise AdapterError(f"{steps} steps: give 1 or more")
        self.steps = steps
        self.label = learned(classes, width)
        self.network = FlowDecoder(self.count, self.depth, 1, width, width, depth, heads, grid=len(self.place) == 2)
        self.register_buffer("mean", torch.zeros(self.depth))
        self.register_buffer("deviation", torch.ones(self.depth))

    def prepare_data(self, material: TrainingData, *rest: object) -> TrainingData:
        found = super().prepare_data(material, *rest)  # type: ignore[arg-type]
        assert found.tokens is not None
        values = found.tokens[0].float().flatten(0, 1)
        self.mean.copy_(values.mean(0))
        self.deviation.copy_(values.std(0).clamp(min=1e-3))
        return found

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        rows, labels = examples_of(batch)
        latents = (rows.float() - self.mean) / self.deviation
        time = logit_normal(len(rows), rows.device)
        entered, wanted = noised(latents, time)
        hidden = self.hidden(labels)
        keep = hidden < self.classes
        found = self.network(entered, time, self.label[hidden * keep][:, None], keep[:, None])
        return {"velocity": (found.float() - wanted).square().mean()}

    @torch.no_grad()
    def sample(self, labels: Tensor, seeds: Sequence[int], guidance: float) -> Tensor:
        latents = self.network.sample(self.label[labels][:, None], seeds, self.steps, guidance)
        return latents.float() * self.deviation + self.mean

    def num_function_evaluations(self, guidance: float) -> float:
        return self.steps * (1.0 if guidance == 1 else 2.0)
