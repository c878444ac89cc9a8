"""ENAT's network, which processes visible and masked tokens separately (Ni et al., ENAT, arXiv:2411.06959).

The encoder processes visible tokens only; a decoder, conditioned on their features, predicts the masked ones. Features
that were computed in one sampling step are reused in the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.priors.discrete import IndexPrior, vectors
from tokbench.nn.priors.maskgit import check_steps, fill, masked_at
from tokbench.nn.priors.prior import tokens_and_labels
from tokbench.nn.priors.sampling import apply_cfg, cfg_labels, check_options, scale_at
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import ADDED, initialise, mlp
from tokbench.tokenizers.base import Tokenizer

Layout = Literal["uniform", "split", "reuse"]

MASKED = (12.0, 3.0)
"""Parameters of the Beta distribution from which the share of masked tokens of a batch is drawn."""
REUSED = 0.5
"""Share of the training batches in which the features of some visible tokens come from a separate pass."""


class Block(nn.Module):
    """A transformer block of tokens (B, N, D) that also attend to a context (B, M, D) with a separate projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_context, self.norm_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.context, self.out = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.mlp = mlp(width)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        own = self.norm(x)
        both = self.key_value(own)
        if context is not None:
            both = torch.cat([self.context(self.norm_context(context)), both], 1)
        query = self.query(own).unflatten(2, (self.heads, -1)).transpose(1, 2)
        key, value = both.unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm_mlp(x))


def picked(where: Tensor) -> Tensor:
    """Return in order the positions (B, M) where `where` (B, N) is True. Raises ValueError if rows differ in number."""
    counts = where.sum(1)
    if int(counts.min()) != int(counts.max()):
        raise ValueError(f"rows have {int(counts.min())} to {int(counts.max())} tokens; all must have the same number")
    return (~where).int().argsort(dim=1, stable=True)[:, : int(counts[0])]


class ENAT(IndexPrior):
    """A masked prior with `encoder` + `decoder` blocks; the class is a token that is always visible.

    layout: "uniform", all tokens in all blocks (as MaskGIT); "split", ENAT's disentangled architecture; "reuse",
    the same with features reused from earlier steps. steps, choice, temperature: as in `MaskGIT`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        size: int,
        classes: int,
        layout: Layout,
        width: int = 160,
        encoder: int = 4,
        decoder: int = 1,
        heads: int = 5,
        steps: int = 8,
        choice: float = 4.5,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(tokenizer, size, classes, width)
        check_options(temperature)
        check_steps(steps, self.count)
        self.layout, self.width = layout, width
        self.steps, self.choice, self.temperature = steps, choice, temperature
        self.masked = vectors(width)
        self.encoder = nn.ModuleList(Block(width, heads) for _ in range(encoder))
        self.decoder = nn.ModuleList(Block(width, heads) for _ in range(decoder))
        self.before = nn.Sequential(nn.LayerNorm(width), *mlp(width))
        self.norm = nn.LayerNorm(width)
        for part in (self.encoder, self.decoder, self.before):
            part.apply(initialise)
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if name.endswith((".out.weight", "mlp.2.weight")):
                    weight.mul_(ADDED)
        nn.init.zeros_(self.before[-1].weight)  # type: ignore[arg-type]  # reused features start unchanged

    def visible(self, rows: Tensor, positions: Tensor) -> Tensor:
        """Embed the tokens at positions (B, M) of indices (B, N, G) as vectors (B, M, width)."""
        return self.embed(rows.take_along_dim(positions[..., None], 1)) + self.positions[positions]

    def encode(self, inputs: Tensor, known: Tensor | None = None) -> Tensor:
        """Return features (B, M, width) of all visible tokens, `known` ones first.

        inputs: embeddings of newly visible tokens. known: features of the others from earlier steps, which pass an MLP
        each time they are reused.
        """
        known = None if known is None else known + self.before(known)
        for block in self.encoder:
            inputs = block(inputs, known)
        return inputs if known is None else torch.cat([known, inputs], 1)

    def decode(self, features: Tensor, positions: Tensor) -> Tensor:
        """Return logits (B, M, G, K) of masked tokens at positions (B, M), given the features of all visible ones."""
        x = self.masked + self.positions[positions]
        for block in self.decoder:
            x = block(x, features)
        return self.code_logits(self.norm(x))

    def together(self, labels: Tensor, rows: Tensor, masked: Tensor) -> Tensor:
        """Return logits (B, N, G, K) of all positions with the uniform layout."""
        x = torch.where(masked[..., None], self.masked, self.embed(rows)) + self.positions
        x = torch.cat([self.label[labels][:, None], x], 1)
        for block in (*self.encoder, *self.decoder):
            x = block(x)
        return self.code_logits(self.norm(x[:, 1:]))

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        rows, labels = tokens_and_labels(batch)
        rows, labels = rows.long(), self.drop_labels(labels)
        share = float(torch.distributions.Beta(*MASKED).sample())
        count = min(max(round(share * self.count), 1), self.count)
        order = torch.rand(len(rows), self.count).argsort(1).to(rows.device)
        hidden, shown = order[:, :count], order[:, count:]
        if self.layout == "uniform":
            masked = torch.zeros(len(rows), self.count, dtype=torch.bool, device=rows.device).scatter(1, hidden, True)
            logits = self.together(labels, rows, masked).take_along_dim(hidden[..., None, None], 1)
        else:
            logits = self.decode(self._seen(labels, rows, shown), hidden)
        targets = rows.take_along_dim(hidden[..., None], 1)
        return {"tokens": F.cross_entropy(logits.float().flatten(0, 2), targets.flatten())}

    def _seen(self, labels: Tensor, rows: Tensor, shown: Tensor) -> Tensor:
        """Return features of the class and of the tokens at positions `shown` (B, M).

        With the layout "reuse", the features of a part come from a separate pass in half of the batches, as in
        sampling. The authors use the moving average of the weights for that pass; it is not available in this training
        loop, so the current weights are used, without gradients.
        """
        label = self.label[labels][:, None]
        known_count = int(torch.randint(0, shown.shape[1] + 1, ())) if float(torch.rand(())) < REUSED else None
        if self.layout != "reuse" or known_count is None or known_count == shown.shape[1]:
            return self.encode(torch.cat([label, self.visible(rows, shown)], 1))
        with torch.no_grad():
            before = self.encode(torch.cat([label, self.visible(rows, shown[:, :known_count])], 1))
        return self.encode(self.visible(rows, shown[:, known_count:]), before)

    @torch.no_grad()
    def sample(self, labels: Tensor, seeds: Sequence[int], guidance: float) -> Tensor:
        all_labels = cfg_labels(labels, self.classes, guidance)
        copies = len(all_labels) // len(labels)
        known, visible_mask = None, torch.zeros(len(all_labels), self.count, dtype=torch.bool, device=labels.device)

        def predict(rows: Tensor, masked: Tensor, step: int) -> Tensor:
            nonlocal known, visible_mask
            rows, masked = rows.repeat(copies, 1, 1), masked.repeat(copies, 1)
            if self.layout == "uniform":
                logits = self.together(all_labels, rows, masked)
            else:
                if known is None or self.layout == "split":
                    shown = picked(~masked)
                    known = self.encode(torch.cat([self.label[all_labels][:, None], self.visible(rows, shown)], 1))
                else:
                    new = picked(~masked & ~visible_mask)
                    known = self.encode(self.visible(rows, new), known)
                visible_mask = ~masked
                hidden = picked(masked)
                hidden_logits = self.decode(known, hidden)
                logits = hidden_logits.new_zeros(len(rows), self.count, self.depth, self.codes)
                logits = logits.scatter(1, hidden[..., None, None].expand_as(hidden_logits), hidden_logits)
            return logits if copies == 1 else apply_cfg(logits, scale_at(step / self.steps, guidance, "linear"))

        temperatures = [self.temperature] * self.steps
        return fill(predict, seeds, self.count, self.depth, temperatures, self.choice, labels.device)

    def num_function_evaluations(self, guidance: float) -> float:
        """Return the multiplications of all steps, including the head, relative to one pass over all tokens."""
        blocks, all_tokens = len(self.encoder) + len(self.decoder), 1 + self.count
        one_pass = blocks * self._block(all_tokens, 0) + self._head(self.count)
        if self.layout == "uniform":
            total = self.steps * one_pass
        else:
            num_hidden = [self.count, *(masked_at(step, self.steps, self.count) for step in range(1, self.steps))]
            total, known = 0, 0
            for hidden in num_hidden:
                visible = all_tokens - hidden
                known = known if self.layout == "reuse" else 0
                reuse_cost = 8 * self.width**2 * known  # the MLP on reused features
                encoded = len(self.encoder) * self._block(visible - known, known)
                total += reuse_cost + encoded + len(self.decoder) * self._block(hidden, visible) + self._head(hidden)
                known = visible
        return total / one_pass * (1.0 if guidance == 1 else 2.0)

    def _block(self, own: int, context: int) -> int:
        """Return the multiplications of a block for `own` tokens that also attend to `context` other ones."""
        return 12 * self.width**2 * own + 2 * self.width**2 * context + 2 * self.width * own * (own + context)

    def _head(self, count: int) -> int:
        return count * self.width * self.depth * self.codes
