"""Token-Shuffle: a GPT whose positions are windows of tokens, merged by channel (Ma et al., arXiv:2504.17789)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.errors import AdapterError
from tokbench.nn.masks import causal
from tokbench.nn.priors.discrete import IndexPrior
from tokbench.nn.priors.prior import examples_of
from tokbench.nn.priors.sampling import Schedule, apply_cfg, cfg_labels, check_options, choose, scale_at, uniforms
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import Past, Transformer, mlp
from tokbench.tokenizers.base import Tokenizer


def shuffled(grid: Tensor, window: int) -> Tensor:
    """Vectors of a grid (B, H, W, C) as one for each window x window of them, (B, H/w * W/w, w * w * C), row by row."""
    rows = grid.unflatten(1, (-1, window)).unflatten(3, (-1, window))  # (B, H/w, w, W/w, w, C)
    return rows.permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(1, 2)


def unshuffled(fused: Tensor, window: int, height: int, width: int) -> Tensor:
    """The inverse: (B, H/w * W/w, w * w * C) to (B, H, W, C)."""
    rows = fused.unflatten(1, (height // window, width // window)).unflatten(3, (window, window, -1))
    return rows.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2)


class Residual(nn.Module):
    """An MLP after a norm, added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(width), mlp(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x))


class TokenShuffle(IndexPrior):
    """`window` 1 is the plain GPT, with the same parts around its body; `squeeze`: vectors are squeezed to the width
    that merging would need, and no tokens are merged, which tells the loss of rank from that of independence.

    A fused position gives all codes of the next window at once, independent of one another given what came before.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        size: int,
        classes: int,
        window: int,
        squeeze: bool = False,
        width: int = 160,
        depth: int = 5,
        heads: int = 5,
        blocks: int = 2,
        schedule: Schedule = "half-linear",
        temperature: float = 1.0,
    ) -> None:
        merged = 1 if squeeze else window
        super().__init__(tokenizer, size, classes, width, merged**2)
        check_options(temperature, schedule=schedule)
        if len(self.place) != 2 or self.place[0] % window or self.place[1] % window:
            raise AdapterError(f"{tokenizer.spec.name}: tokens {self.place} are no grid of {window}x{window} windows")
        self.window, self.schedule, self.temperature = window, schedule, temperature
        self.merged, self.fused = merged, self.count // merged**2
        narrow = width // window**2
        kept = narrow * merged**2
        self.squeezed, self.opened = nn.Linear(width, narrow), nn.Linear(narrow, width)
        self.enter = nn.Sequential(nn.Linear(kept, width), *(Residual(width) for _ in range(blocks)))
        self.leave = nn.Sequential(*(Residual(width) for _ in range(blocks)), nn.Linear(width, kept))
        self.body = Transformer(width, depth, heads)
        self.norm = nn.LayerNorm(width)
        self.register_buffer("mask", causal(self.fused), persistent=False)
        self.mask: Tensor

    def entered(self, windows: Tensor) -> Tensor:
        """Windows of indices (B, M, w * w, G) as inputs of the body (B, M, width)."""
        batch, many = windows.shape[:2]
        vectors = self.squeezed(self.embed(windows.flatten(0, 1)))
        return self.enter(vectors.reshape(batch, many, -1))

    def left(self, out: Tensor) -> Tensor:
        """Outputs of the body (B, M, width) as logits of the windows (B, M, w * w, G, K)."""
        vectors = self.opened(self.leave(out).unflatten(2, (self.merged**2, -1)))
        return self.of_codes(self.norm(vectors))

    def windows(self, rows: Tensor) -> Tensor:
        """Rows (B, N, G) as windows (B, M, w * w, G)."""
        grid = rows.unflatten(1, self.place)
        return shuffled(grid, self.merged).unflatten(2, (self.merged**2, self.depth))

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        rows, labels = examples_of(batch)
        windows = self.windows(rows.long())
        told = self.label[self.hidden(labels)][:, None]
        entered = torch.cat([told, self.entered(windows[:, :-1])], 1) + self.positions
        logits = self.left(self.body(entered, self.mask))
        return {"tokens": F.cross_entropy(logits.float().flatten(0, 3), windows.flatten())}

    @torch.no_grad()
    def sample(self, labels: Tensor, seeds: Sequence[int], guidance: float) -> Tensor:
        noise = uniforms(seeds, self.fused, self.merged**2, self.depth).to(labels.device)
        told = cfg_labels(labels, self.classes, guidance)
        copies = len(told) // len(labels)
        found: list[Tensor] = []
        pasts = [Past() for _ in self.body.blocks]
        for place in range(self.fused):
            entered = self.entered(found[-1][:, None])[:, 0].repeat(copies, 1) if found else self.label[told]
            logits = self.left(self.body((entered + self.positions[place])[:, None], pasts=pasts))[:, 0]
            if copies > 1:
                logits = apply_cfg(logits, scale_at(place / max(1, self.fused - 1), guidance, self.schedule))
            found.append(choose(logits, noise[:, place], self.temperature))
        fused = torch.stack(found, 1).flatten(2)
        return unshuffled(fused, self.merged, *self.place).flatten(1, 2)

    def num_function_evaluations(self, guidance: float) -> float:
        return 1.0 if guidance == 1 else 2.0
