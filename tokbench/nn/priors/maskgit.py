"""MaskGIT: parallel decoding of masked tokens in a few steps (Chang et al., arXiv:2202.04200)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.errors import AdapterError
from tokbench.nn.priors.discrete import IndexPrior, vectors
from tokbench.nn.priors.prior import tokens_and_labels
from tokbench.nn.priors.sampling import apply_cfg, cfg_labels, check_options, choose, scale_at, uniforms
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import Transformer
from tokbench.tokenizers.base import Tokenizer


def masked_at(step: int, steps: int, count: int) -> int:
    """Return how num_masked of `count` positions are still masked after `step` (1 to `steps`) by the cosine schedule.

    Every step unmasks at least one position; after the last step none is masked.
    """
    if step >= steps:
        return 0
    return min(int(count * math.cos(math.pi / 2 * step / steps)), count - step)


def check_steps(steps: int, count: int) -> None:
    """Raise AdapterError unless `steps` is between 1 and `count`, so that every step can unmask a token."""
    if not 1 <= steps <= count:
        raise AdapterError(f"{steps} steps for {count} tokens: each step unmasks a token, so use 1 to {count} steps")


Predict = Callable[[Tensor, Tensor, int], Tensor]
"""A function of indices (B, N, G), mask (B, N) and step (1 to the last) that returns guided logits (B, N, G, K)."""


def fill(
    predict: Predict,
    seeds: Sequence[int],
    count: int,
    depth: int,
    temperatures: Sequence[float],
    choice: float,
    device: torch.device,
) -> Tensor:
    """Sample indices (B, N, G), from all positions masked to none, in as many steps as there are `temperatures`.

    Every step samples all masked positions with its temperature and keeps those with the highest log-probability plus
    Gumbel noise, whose weight decreases linearly from `choice` to 0. Kept tokens never change. seeds: one per image.
    count, depth: N and G.
    """
    steps = len(temperatures)
    noise = uniforms(seeds, steps, count, depth + 1).to(device)
    rows = torch.zeros(len(seeds), count, depth, dtype=torch.long, device=device)
    masked = torch.ones(len(seeds), count, dtype=torch.bool, device=device)
    for step in range(1, steps + 1):
        logits = predict(rows, masked, step)
        sampled = choose(logits, noise[:, step - 1, :, :depth], temperatures[step - 1])
        rows = torch.where(masked[..., None], sampled, rows)
        log_probability = logits.double().log_softmax(-1).gather(-1, sampled[..., None])[..., 0].sum(-1)
        gumbel = -(-noise[:, step - 1, :, depth].clamp(min=1e-12).log()).log()
        confidence = (log_probability + choice * (1 - step / steps) * gumbel).masked_fill(~masked, math.inf)
        num_masked = masked_at(step, steps, count)
        masked = torch.zeros_like(masked).scatter(1, confidence.argsort(1)[:, :num_masked], True)
    return rows


class MaskGIT(IndexPrior):
    """A bidirectional transformer that predicts masked tokens; a mask token replaces them, with their positions.

    steps: number of sampling steps. choice: initial weight of the Gumbel noise in the choice of the tokens to keep.
    temperature: sampling temperature of the tokens. The guidance scale increases linearly over the steps.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        size: int,
        classes: int,
        width: int = 192,
        depth: int = 5,
        heads: int = 6,
        steps: int = 8,
        choice: float = 4.5,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(tokenizer, size, classes, width)
        check_options(temperature)
        check_steps(steps, self.count)
        self.steps, self.choice, self.temperature = steps, choice, temperature
        self.masked = vectors(width)
        self.body = Transformer(width, depth, heads)

    def logits(self, labels: Tensor, rows: Tensor, masked: Tensor) -> Tensor:
        """Return logits (B, N, G, K), given labels (B,), indices (B, N, G) and the mask (B, N) of masked positions."""
        inputs = torch.where(masked[..., None], self.masked, self.embed(rows)) + self.positions
        out = self.body(torch.cat([self.label[labels][:, None], inputs], 1))[:, 1:]
        return self.code_logits(out)

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        rows, labels = tokens_and_labels(batch)
        masked = masks(len(rows), self.count).to(rows.device)
        logits = self.logits(self.drop_labels(labels), rows, masked)
        return {"tokens": F.cross_entropy(logits[masked].float().flatten(0, 1), rows.long()[masked].flatten())}

    @torch.no_grad()
    def sample(self, labels: Tensor, seeds: Sequence[int], guidance: float) -> Tensor:
        all_labels = cfg_labels(labels, self.classes, guidance)

        def predict(rows: Tensor, masked: Tensor, step: int) -> Tensor:
            copies = len(all_labels) // len(labels)
            logits = self.logits(all_labels, rows.repeat(copies, 1, 1), masked.repeat(copies, 1))
            return logits if copies == 1 else apply_cfg(logits, scale_at(step / self.steps, guidance, "linear"))

        temperatures = [self.temperature] * self.steps
        return fill(predict, seeds, self.count, self.depth, temperatures, self.choice, labels.device)

    def num_function_evaluations(self, guidance: float) -> float:
        return self.steps * (1.0 if guidance == 1 else 2.0)


def masks(batch: int, count: int) -> Tensor:
    """Draw training masks (B, N); each covers the share cos(pi/2 u), u uniform, and at least one position."""
    share = torch.cos(math.pi / 2 * torch.rand(batch))
    num_masked = (share * count).ceil().clamp(min=1)
    return torch.rand(batch, count).argsort(1).argsort(1) < num_masked[:, None]
