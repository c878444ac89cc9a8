"""Methods that reduce the patch tokens of a segment of frames to a given number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from tokbench.errors import UsageError
from tokbench.pruning.clips.cluster import k_medoids, spectral
from tokbench.pruning.strided import spaced


class ClipReducer(ABC):
    """A method without training. title, source: its name in tables and its paper."""

    title: ClassVar[str]
    source: ClassVar[str] = "arXiv:2205.00823"

    @abstractmethod
    def reduce(self, tokens: Tensor, count: int) -> Tensor:
        """Reduce the tokens (B, f, h, w, D) of segments of f frames to (B, count, D). Raises UsageError."""


class Selecting(ClipReducer):
    """A method that keeps tokens as they are, in their order."""

    def reduce(self, tokens: Tensor, count: int) -> Tensor:
        flat = tokens.flatten(1, 3)
        return flat.gather(1, self.chosen(flat, count)[..., None].expand(-1, -1, flat.shape[2]))

    @abstractmethod
    def chosen(self, tokens: Tensor, count: int) -> Tensor:
        """Return the positions (B, count) of the kept tokens among tokens (B, N, D)."""


class Uniform(Selecting):
    """Keeps evenly spaced tokens, independently of the clip."""

    title, source = "uniform sampling", "control"

    def chosen(self, tokens: Tensor, count: int) -> Tensor:
        return spaced(tokens.shape[1], count, tokens).expand(len(tokens), -1)


class Pooling(ClipReducer):
    """Averages tokens over the frames of a segment, and then over rectangles of the grid."""

    title, source = "temporal pooling", "control"

    def reduce(self, tokens: Tensor, count: int) -> Tensor:
        height, width = tokens.shape[2:4]
        grids = [(high, count // high) for high in range(1, height + 1) if count % high == 0 and count // high <= width]
        if not grids:
            raise UsageError(
                f"temporal pooling cannot make {count} tokens of a grid of {height}x{width}: the number must be "
                "that of a rectangle within this grid; use another keep"
            )
        grid = min(grids, key=lambda sides: abs(sides[0] - sides[1]))
        pooled = F.adaptive_avg_pool2d(tokens.mean(1).permute(0, 3, 1, 2), grid)
        return pooled.flatten(2).transpose(1, 2)


class KMedoids(Selecting):
    """Keeps the medoids of k-medoids++ clusters."""

    title = "CenterCLIP, k-medoids++"

    def chosen(self, tokens: Tensor, count: int) -> Tensor:
        return k_medoids(tokens, count)


class Spectral(Selecting):
    """Keeps the medoids of spectral clusters."""

    title = "CenterCLIP, spectral"

    def chosen(self, tokens: Tensor, count: int) -> Tensor:
        return spectral(tokens, count)


METHODS: dict[str, type[ClipReducer]] = {
    "uniform": Uniform,
    "pooling": Pooling,
    "k_medoids": KMedoids,
    "spectral": Spectral,
}
"""All methods by name; the first two are the controls."""

CONTROLS = ("uniform", "pooling")
