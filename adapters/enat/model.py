"""ENAT's network: visible and masked tokens go separate ways (Ni et al., ENAT, arXiv:2411.06959).

Visible tokens alone run through the encoder; masked ones are then filled in by a decoder that looks at them. What was
encoded in one step of sampling is not encoded again in the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.priors.discrete import IndexPrior, vectors
from tokbench.nn.priors.maskgit import check_steps, fill, masked_at
from tokbench.nn.priors.prior import examples_of
from tokbench.nn.priors.sampling import apply_cfg, cfg_labels, check_options, scale_at
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import ADDED, initialise, mlp
from tokbench.tokenizers.base import Tokenizer

Layout = Literal["uniform", "split", "reuse"]

MASKED = (12.0, 3.0)
"""Of the Beta distribution from which a batch's share of masked tokens comes."""
REUSED = 0.5
"""Share of the batches in which some visible tokens come encoded already."""


class Block(nn.Module):
    """Tokens (B, N, D) look at one another and at a context (B, M, D), which has keys and values of its own."""

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
        found = F.scaled_dot_product_attention(query, key, value)
        x = x + self.out(found.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm_mlp(x))


def picked(where: Tensor) -> Tensor:
    """The places (B, M) where `where` (B, N) holds, in order; it must hold equally often in every row."""
    counts = where.sum(1)
    if int(counts.min()) != int(counts.max()):
        raise ValueError(f"{int(counts.min())} to {int(counts.max())} tokens of a row; they must be equally many")
    return (~where).int().argsort(dim=1, stable=True)[:, : int(counts[0])]


class ENAT(IndexPrior):
    """`layout`: "uniform", all tokens in all blocks (MaskGIT's); "split", the disentangled one; "reuse", with features
    of earlier steps. All have `encoder` + `decoder` blocks.

    The class is one token that is always visible.
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
        nn.init.zeros_(self.before[-1].weight)  # type: ignore[arg-type]  # what is known comes as it is, at first

    def visible(self, rows: Tensor, places: Tensor) -> Tensor:
        """Vectors (B, M, width) of the tokens at places (B, M) of rows (B, N, G)."""
        return self.embed(rows.take_along_dim(places[..., None], 1)) + self.positions[places]

    def encode(self, entered: Tensor, known: Tensor | None = None) -> Tensor:
        """Features (B, M, width) of all tokens that are visible: of those that became so, given `known` features of the
        others, which go through an MLP each time that they are used again."""
        known = None if known is None else known + self.before(known)
        for block in self.encoder:
            entered = block(entered, known)
        return entered if known is None else torch.cat([known, entered], 1)

    def decode(self, features: Tensor, places: Tensor) -> Tensor:
        """Logits (B, M, G, K) of masked tokens at places (B, M), given the features of all visible ones."""
        x = self.masked + self.positions[places]
        for block in self.decoder:
            x = block(x, features)
        return self.of_codes(self.norm(x))

    def together(self, labels: Tensor, rows: Tensor, masked: Tensor) -> Tensor:
        """Logits (B, N, G, K) of all places by the uniform layout."""
        x = torch.where(masked[..., None], self.masked, self.embed(rows)) + self.positions
        x = torch.cat([self.label[labels][:, None], x], 1)
        for block in (*self.encoder, *self.decoder):
            x = block(x)
        return self.of_codes(self.norm(x[:, 1:]))

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        rows, labels = examples_of(batch)
        rows, labels = rows.long(), self.hidden(labels)
        share = float(torch.distributions.Beta(*MASKED).sample())
        many = min(max(round(share * self.count), 1), self.count)
        order = torch.rand(len(rows), self.count).argsort(1).to(rows.device)
        hidden, shown = order[:, :many], order[:, many:]
        if self.layout == "uniform":
            masked = torch.zeros(len(rows), self.count, dtype=torch.bool, device=rows.device).scatter(1, hidden, True)
            logits = self.together(labels, rows, masked).take_along_dim(hidden[..., None, None], 1)
        else:
            logits = self.decode(self._seen(labels, rows, shown), hidden)
        wanted = rows.take_along_dim(hidden[..., None], 1)
        return {"tokens": F.cross_entropy(logits.float().flatten(0, 2), wanted.flatten())}

    def _seen(self, labels: Tensor, rows: Tensor, shown: Tensor) -> Tensor:
        """Features of the class and of the tokens shown; in half of the batches, if they are reused, those of a part
        come from a pass of their own, as in sampling. The authors take that pass by the moving average of the weights,
        which this loop does not hand out; here it is by the weights themselves, without a gradient."""
        label = self.label[labels][:, None]
        early = int(torch.randint(0, shown.shape[1] + 1, ())) if float(torch.rand(())) < REUSED else None
        if self.layout != "reuse" or early is None or early == shown.shape[1]:
            return self.encode(torch.cat([label, self.visible(rows, shown)], 1))
        with torch.no_grad():
            before = self.encode(torch.cat([label, self.visible(rows, shown[:, :early])], 1))
        return self.encode(self.visible(rows, shown[:, early:]), before)

    @torch.no_grad()
    def sample(self, labels: Tensor, seeds: Sequence[int], guidance: float) -> Tensor:
        told = cfg_labels(labels, self.classes, guidance)
        copies = len(told) // len(labels)
        known, seen = None, torch.zeros(len(told), self.count, dtype=torch.bool, device=labels.device)

        def look(rows: Tensor, masked: Tensor, step: int) -> Tensor:
            nonlocal known, seen
            rows, masked = rows.repeat(copies, 1, 1), masked.repeat(copies, 1)
            if self.layout == "uniform":
                logits = self.together(told, rows, masked)
            else:
                if known is None or self.layout == "split":
                    shown = picked(~masked)
                    known = self.encode(torch.cat([self.label[told][:, None], self.visible(rows, shown)], 1))
                else:
                    new = picked(~masked & ~seen)
                    known = self.encode(self.visible(rows, new), known)
                seen = ~masked
                hidden = picked(masked)
                found = self.decode(known, hidden)
                logits = found.new_zeros(len(rows), self.count, self.depth, self.codes)
                logits = logits.scatter(1, hidden[..., None, None].expand_as(found), found)
            return logits if copies == 1 else apply_cfg(logits, scale_at(step / self.steps, guidance, "linear"))

        return fill(look, seeds, self.count, self.depth, self.steps, self.choice, self.temperature, labels.device)

    def num_function_evaluations(self, guidance: float) -> float:
        """Multiplications of all steps, those of the head among them, over those of one pass of all tokens."""
        blocks, whole = len(self.encoder) + len(self.decoder), 1 + self.count
        once = blocks * self._block(whole, 0) + self._head(self.count)
        if self.layout == "uniform":
            total = self.steps * once
        else:
            left = [self.count, *(masked_at(step, self.steps, self.count) for step in range(1, self.steps))]
            total, known = 0, 0
            for hidden in left:
                seen = whole - hidden
                known = known if self.layout == "reuse" else 0
                again = 8 * self.width**2 * known  # the MLP before what is used again
                encoded = len(self.encoder) * self._block(seen - known, known)
                total += again + encoded + len(self.decoder) * self._block(hidden, seen) + self._head(hidden)
                known = seen
        return total / once * (1.0 if guidance == 1 else 2.0)

    def _block(self, own: int, context: int) -> int:
        """Multiplications of a block for so many tokens and so many that they look at beside one another."""
        return 12 * self.width**2 * own + 2 * self.width**2 * context + 2 * self.width * own * (own + context)

    def _head(self, many: int) -> int:
        return many * self.width * self.depth * self.codes
