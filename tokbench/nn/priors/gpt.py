"""A class-conditional autoregressive transformer (GPT) over sequences of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.nn.masks import causal
from tokbench.nn.priors.discrete import IndexPrior
from tokbench.nn.priors.prior import tokens_and_labels
from tokbench.nn.priors.sampling import Schedule, apply_cfg, cfg_labels, check_options, choose, scale_at, uniforms
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import Past, Transformer
from tokbench.tokenizers.base import Tokenizer


class GPT(IndexPrior):
    """A decoder-only transformer over sequences of N positions with G indices each; the first input is the class.

    The G indices of a position are sampled together, independently of each other given all earlier positions.
    schedule: guidance scale over the sequence (`scale_at`). temperature, top_k, top_p: sampling options (`choose`).
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        size: int,
        classes: int,
        width: int = 192,
        depth: int = 5,
        heads: int = 6,
        schedule: Schedule = "constant",
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
    ) -> None:
        super().__init__(tokenizer, size, classes, width)
        check_options(temperature, top_k, top_p, schedule)
        self.schedule, self.temperature, self.top_k, self.top_p = schedule, temperature, top_k, top_p
        self.body = Transformer(width, depth, heads)
        self.register_buffer("mask", causal(self.count), persistent=False)
        self.mask: Tensor

    def logits(self, labels: Tensor, rows: Tensor) -> Tensor:
        """Return logits (B, k + 1, G, K) of k + 1 positions, given labels (B,) and the first k indices (B, k, G)."""
        inputs = torch.cat([self.label[labels][:, None], self.embed(rows)], 1)
        length = inputs.shape[1]
        out = self.body(inputs + self.positions[:length], self.mask[:length, :length])
        return self.code_logits(out)

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        rows, labels = tokens_and_labels(batch)
        logits = self.logits(self.drop_labels(labels), rows[:, :-1])
        return {"tokens": F.cross_entropy(logits.float().flatten(0, 2), rows.long().flatten())}

    @torch.no_grad()
    def sample(
        self,
        labels: Tensor,
        seeds: Sequence[int],
        guidance: float,
        cached: bool = True,
        known: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Sample indices (B, N, G) of classes `labels` (B,), one seed per image.

        cached: whether to keep keys and values of earlier positions instead of recomputing them. known: indices
        (B, N, G) and a mask (B, N); where the mask is True, these indices replace the sampled ones.
        """
        noise = uniforms(seeds, self.count, self.depth).to(labels.device)
        all_labels = cfg_labels(labels, self.classes, guidance)
        copies = len(all_labels) // len(labels)
        rows = torch.zeros(len(labels), 0, self.depth, dtype=torch.long, device=labels.device)
        pasts = [Past() for _ in self.body.blocks]
        for position in range(self.count):
            if cached:
                inputs = self.label[all_labels] if not position else self.embed(rows[:, -1:])[:, 0].repeat(copies, 1)
                out = self.body((inputs + self.positions[position])[:, None], pasts=pasts)
                logits = self.code_logits(out[:, 0])
            else:
                logits = self.logits(all_labels, rows.repeat(copies, 1, 1))[:, -1]
            if copies > 1:
                logits = apply_cfg(logits, scale_at(position / max(1, self.count - 1), guidance, self.schedule))
            sampled = choose(logits, noise[:, position], self.temperature, self.top_k, self.top_p)
            if known is not None:
                sampled = torch.where(known[1][:, position, None], known[0][:, position].long(), sampled)
            rows = torch.cat([rows, sampled[:, None]], 1)
        return rows

    def num_function_evaluations(self, guidance: float) -> float:
        return 1.0 if guidance == 1 else 2.0  # with the cache each position is evaluated once
