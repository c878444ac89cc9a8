"""MaskGIT: all positions at once, the most certain ones kept, in a few steps (Chang et al., arXiv:2202.04200)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.errors import AdapterError
from tokbench.nn.priors.discrete import IndexPrior, vectors
from tokbench.nn.priors.prior import examples_of
from tokbench.nn.priors.sampling import apply_cfg, cfg_labels, check_options, choose, scale_at, uniforms
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import Transformer
from tokbench.tokenizers.base import Tokenizer


def masked_at(step: int, steps: int, count: int) -> int:
    """Positions of `count` that are still masked after `step` of `steps` steps (1 to `steps`): the cosine schedule, at
    least one fewer each step, none after the last."""
    if step >= steps:
        return 0
    return min(int(count * math.cos(math.pi / 2 * step / steps)), count - step)


def check_steps(steps: int, count: int) -> None:
    """Raises AdapterError where not every step could keep a token, or there is none."""
    if not 1 <= steps <= count:
        raise AdapterError(f"{steps} steps for {count} tokens: give 1 to {count}, for each must keep one")


Look = Callable[[Tensor, Tensor, int], Tensor]
"""Logits (B, N, G, K), guided, of rows (B, N, G) that are masked in places (B, N), at a step (1 to the last)."""


def fill(
    look: Look,
    seeds: Sequence[int],
    count: int,
    depth: int,
    steps: int,
    choice: float,
    temperature: float,
    device: torch.device,
) -> Tensor:
    """Rows (B, N, G) from all masked to none: each step draws every masked position and keeps those whose chance,
    made random by `choice` less and less, is highest. What is kept is never drawn again."""
    noise = uniforms(seeds, steps, count, depth + 1).to(device)
    rows = torch.zeros(len(seeds), count, depth, dtype=torch.long, device=device)
    masked = torch.ones(len(seeds), count, dtype=torch.bool, device=device)
    for step in range(1, steps + 1):
        logits = look(rows, masked, step)
        drawn = choose(logits, noise[:, step - 1, :, :depth], temperature)
        rows = torch.where(masked[..., None], drawn, rows)
        chance = logits.double().log_softmax(-1).gather(-1, drawn[..., None])[..., 0].sum(-1)
        gumbel = -(-noise[:, step - 1, :, depth].clamp(min=1e-12).log()).log()
        certain = (chance + choice * (1 - step / steps) * gumbel).masked_fill(~masked, math.inf)
        many = masked_at(step, steps, count)
        masked = torch.zeros_like(masked).scatter(1, certain.argsort(1)[:, :many], True)
    return rows


class MaskGIT(IndexPrior):
    """A bidirectional transformer over a row in which masked positions are one learned vector, told apart by place.

    steps: of sampling. choice: how random it is at first which tokens are kept, falling to not at all. temperature: of
    the tokens. Guidance rises over the steps as a line.
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
        """Of all positions (B, N, G, K), given labels (B,), rows (B, N, G) and where they are masked (B, N)."""
        entered = torch.where(masked[..., None], self.masked, self.embed(rows)) + self.positions
        out = self.body(torch.cat([self.label[labels][:, None], entered], 1))[:, 1:]
        return self.of_codes(out)

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        rows, labels = examples_of(batch)
        masked = masks(len(rows), self.count).to(rows.device)
        logits = self.logits(self.hidden(labels), rows, masked)
        return {"tokens": F.cross_entropy(logits[masked].float().flatten(0, 1), rows.long()[masked].flatten())}

    @torch.no_grad()
    def sample(self, labels: Tensor, seeds: Sequence[int], guidance: float) -> Tensor:
        told = cfg_labels(labels, self.classes, guidance)

        def look(rows: Tensor, masked: Tensor, step: int) -> Tensor:
            copies = len(told) // len(labels)
            logits = self.logits(told, rows.repeat(copies, 1, 1), masked.repeat(copies, 1))
            return logits if copies == 1 else apply_cfg(logits, scale_at(step / self.steps, guidance, "linear"))

        return fill(look, seeds, self.count, self.depth, self.steps, self.choice, self.temperature, labels.device)

    def num_function_evaluations(self, guidance: float) -> float:
        return self.steps * (1.0 if guidance == 1 else 2.0)


def masks(batch: int, count: int) -> Tensor:
    """Masks (B, N) for training: of each example the share cos(pi/2 u) of its positions, at least one."""
    share = torch.cos(math.pi / 2 * torch.rand(batch))
    many = (share * count).ceil().clamp(min=1)
    return torch.rand(batch, count).argsort(1).argsort(1) < many[:, None]
