"""A class-conditional GPT over rows of tokens: one position after the other, each given all before it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.nn.masks import causal
from tokbench.nn.priors.discrete import IndexPrior
from tokbench.nn.priors.prior import examples_of
from tokbench.nn.priors.sampling import Schedule, apply_cfg, cfg_labels, check_options, choose, scale_at, uniforms
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import Past, Transformer
from tokbench.tokenizers.base import Tokenizer


class GPT(IndexPrior):
    """A decoder-only transformer. The row's first input is the class; a position's G indices are drawn side by side,
    independent of one another given what came before.

    schedule: of guidance over the row. temperature, top_k, top_p: of sampling.
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
        """Of the first k + 1 positions, given labels (B,) and the first k rows of indices (B, k, G): (B, k+1, G, K)."""
        entered = torch.cat([self.label[labels][:, None], self.embed(rows)], 1)
        seen = entered.shape[1]
        out = self.body(entered + self.positions[:seen], self.mask[:seen, :seen])
        return self.of_codes(out)

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        rows, labels = examples_of(batch)
        logits = self.logits(self.hidden(labels), rows[:, :-1])
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
        """`cached`: keys and values of earlier positions are kept, and not computed again. `known`: rows (B, N, G), and
        where (B, N) their tokens stand in for drawn ones."""
        noise = uniforms(seeds, self.count, self.depth).to(labels.device)
        told = cfg_labels(labels, self.classes, guidance)
        copies = len(told) // len(labels)
        rows = torch.zeros(len(labels), 0, self.depth, dtype=torch.long, device=labels.device)
        pasts = [Past() for _ in self.body.blocks]
        for place in range(self.count):
            if cached:
                entered = self.label[told] if not place else self.embed(rows[:, -1:])[:, 0].repeat(copies, 1)
                out = self.body((entered + self.positions[place])[:, None], pasts=pasts)
                logits = self.of_codes(out[:, 0])
            else:
                logits = self.logits(told, rows.repeat(copies, 1, 1))[:, -1]
            if copies > 1:
                logits = apply_cfg(logits, scale_at(place / max(1, self.count - 1), guidance, self.schedule))
            drawn = choose(logits, noise[:, place], self.temperature, self.top_k, self.top_p)
            if known is not None:
                drawn = torch.where(known[1][:, place, None], known[0][:, place].long(), drawn)
            rows = torch.cat([rows, drawn[:, None]], 1)
        return rows

    def num_function_evaluations(self, guidance: float) -> float:
        return 1.0 if guidance == 1 else 2.0  # each position passes once, with the cache
