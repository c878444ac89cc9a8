"""Token-Shuffle: a GPT whose positions are windows of tokens, merged along channels (Ma et al., arXiv:2504.17789)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.errors import AdapterError
from tokbench.nn.masks import causal
from tokbench.nn.priors.discrete import IndexPrior
from tokbench.nn.priors.prior import tokens_and_labels
from tokbench.nn.priors.sampling import Schedule, apply_cfg, cfg_labels, check_options, choose, scale_at, uniforms
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import Past, Transformer, mlp
from tokbench.tokenizers.base import Tokenizer


def shuffled(grid: Tensor, window: int) -> Tensor:
    """Merge w x w windows of a grid (B, H, W, C) to vectors (B, H/w * W/w, w * w * C), in row-major order."""
    rows = grid.unflatten(1, (-1, window)).unflatten(3, (-1, window))  # (B, H/w, w, W/w, w, C)
    return rows.permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(1, 2)


def unshuffled(fused: Tensor, window: int, height: int, width: int) -> Tensor:
    """Split merged vectors (B, H/w * W/w, w * w * C) into a grid (B, H, W, C), the inverse of `shuffled`."""
    rows = fused.unflatten(1, (height // window, width // window)).unflatten(3, (window, window, -1))
    return rows.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2)


class Residual(nn.Module):
    """A pre-norm residual MLP, (..., width) to the same shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(width), mlp(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x))


class TokenShuffle(IndexPrior):
    """A GPT over windows of `window` x `window` tokens; all codes of a window are predicted together.

    They are independent of each other given all earlier windows. `window` 1 is a plain GPT with the same additional
    layers. squeeze: an ablation that projects vectors to the width that merging would need, without merging tokens; it
    separates the effect of the low rank from that of the independence. blocks: residual MLPs before and after the
    transformer. schedule, temperature: sampling options.
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
            raise AdapterError(f"{tokenizer.spec.name}: tokens {self.place} do not form {window}x{window} windows")
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

    def embed_windows(self, windows: Tensor) -> Tensor:
        """Map windows of indices (B, M, w * w, G) to inputs of the transformer (B, M, width)."""
        batch, count = windows.shape[:2]
        vectors = self.squeezed(self.embed(windows.flatten(0, 1)))
        return self.enter(vectors.reshape(batch, count, -1))

    def window_logits(self, out: Tensor) -> Tensor:
        """Map outputs of the transformer (B, M, width) to logits of the windows (B, M, w * w, G, K)."""
        vectors = self.opened(self.leave(out).unflatten(2, (self.merged**2, -1)))
        return self.code_logits(self.norm(vectors))

    def windows(self, rows: Tensor) -> Tensor:
        """Rearrange indices (B, N, G) to windows (B, M, w * w, G)."""
        grid = rows.unflatten(1, self.place)
        return shuffled(grid, self.merged).unflatten(2, (self.merged**2, self.depth))

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        rows, labels = tokens_and_labels(batch)
        windows = self.windows(rows.long())
        label = self.label[self.drop_labels(labels)][:, None]
        inputs = torch.cat([label, self.embed_windows(windows[:, :-1])], 1) + self.positions
        logits = self.window_logits(self.body(inputs, self.mask))
        return {"tokens": F.cross_entropy(logits.float().flatten(0, 3), windows.flatten())}

    @torch.no_grad()
    def sample(self, labels: Tensor, seeds: Sequence[int], guidance: float) -> Tensor:
        noise = uniforms(seeds, self.fused, self.merged**2, self.depth).to(labels.device)
        all_labels = cfg_labels(labels, self.classes, guidance)
        copies = len(all_labels) // len(labels)
        sampled: list[Tensor] = []
        pasts = [Past() for _ in self.body.blocks]
        for position in range(self.fused):
            inputs = (
                self.embed_windows(sampled[-1][:, None])[:, 0].repeat(copies, 1) if sampled else self.label[all_labels]
            )
            logits = self.window_logits(self.body((inputs + self.positions[position])[:, None], pasts=pasts))[:, 0]
            if copies > 1:
                logits = apply_cfg(logits, scale_at(position / max(1, self.fused - 1), guidance, self.schedule))
            sampled.append(choose(logits, noise[:, position], self.temperature))
        fused = torch.stack(sampled, 1).flatten(2)
        return unshuffled(fused, self.merged, *self.place).flatten(1, 2)

    def num_function_evaluations(self, guidance: float) -> float:
        return 1.0 if guidance == 1 else 2.0
