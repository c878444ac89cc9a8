"""A class-conditional GPT over rows of tokens: one position after the other, each given all before it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.masks import causal
from tokbench.nn.priors.draw import Schedule, choose, doubled, guided, scale_at, uniforms
from tokbench.nn.priors.prior import Prior, examples_of
from tokbench.nn.trainable import Examples
from tokbench.nn.vit import Past, Transformer
from tokbench.tokenizer import Tokenizer


class Embedding(nn.Module):
    """Rows of indices (B, N, G) as vectors (B, N, width): the sum of each group's."""

    def __init__(self, codes: int, groups: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(groups * codes, width) * width**-0.5)
        self.register_buffer("offsets", torch.arange(groups) * codes, persistent=False)
        self.offsets: Tensor

    def forward(self, rows: Tensor) -> Tensor:
        return F.embedding(rows.long() + self.offsets, self.table).sum(2)


class GPT(Prior):
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
        super().__init__(tokenizer, size, classes)
        self.schedule, self.temperature, self.top_k, self.top_p = schedule, temperature, top_k, top_p
        self.embed = Embedding(self.codes, self.depth, width)
        self.label = nn.Parameter(torch.randn(classes + 1, width) * width**-0.5)
        self.positions = nn.Parameter(torch.randn(self.count, width) * width**-0.5)
        self.body = Transformer(width, depth, heads)
        self.head = nn.Linear(width, self.depth * self.codes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("mask", causal(self.count), persistent=False)
        self.mask: Tensor

    def logits(self, labels: Tensor, rows: Tensor) -> Tensor:
        """Of the first k + 1 positions, given labels (B,) and the first k rows of indices (B, k, G): (B, k+1, G, K)."""
        entered = torch.cat([self.label[labels][:, None], self.embed(rows)], 1)
        seen = entered.shape[1]
        out = self.body(entered + self.positions[:seen], self.mask[:seen, :seen])
        return self.head(out).unflatten(2, (self.depth, self.codes))

    def loss(self, batch: Examples, progress: float) -> dict[str, Tensor]:
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
        told = doubled(labels, self.classes, guidance)
        copies = len(told) // len(labels)
        rows = torch.zeros(len(labels), 0, self.depth, dtype=torch.long, device=labels.device)
        pasts = [Past() for _ in self.body.blocks]
        for place in range(self.count):
            if cached:
                entered = self.label[told] if not place else self.embed(rows[:, -1:])[:, 0].repeat(copies, 1)
                out = self.body((entered + self.positions[place])[:, None], pasts=pasts)
                logits = self.head(out[:, 0]).unflatten(1, (self.depth, self.codes))
            else:
                logits = self.logits(told, rows.repeat(copies, 1, 1))[:, -1]
            if copies > 1:
                logits = guided(logits, scale_at(place / max(1, self.count - 1), guidance, self.schedule))
            drawn = choose(logits, noise[:, place], self.temperature, self.top_k, self.top_p)
            if known is not None:
                drawn = torch.where(known[1][:, place, None], known[0][:, place].long(), drawn)
            rows = torch.cat([rows, drawn[:, None]], 1)
        return rows

    def evaluations(self, guidance: float) -> float:
        return 1.0 if guidance == 1 else 2.0  # each position passes once, with the cache
