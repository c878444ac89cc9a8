"""SiT: learned weights combine all tokens into fewer (Zong et al., ECCV 2022, arXiv:2111.12624)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tokbench.errors import UsageError
from tokbench.pruning.flops import Counts
from tokbench.pruning.pruner import Pruner, PruningState, stages
from tokbench.pruning.vit import Attended, Sizes


class Slimmer(nn.Module):
    """Maps tokens (B, n, D) to `count` weighted means of all tokens; a small network predicts the weights (TSM)."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, count)
        )
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, tokens: Tensor) -> Tensor:
        return (self.weigh(tokens) * self.scale).softmax(1).transpose(1, 2) @ tokens


class SiTSlim(Pruner):
    """Applies a slimmer after the block of each stage; trained together with the network for one `keep`."""

    title, source = "SiT", "arXiv:2111.12624"
    training = "weights"
    after = True
    rounds = False

    def __init__(self, slimmers: Sequence[nn.Module], keep: float) -> None:
        self.slimmers, self.keep = slimmers, keep

    def plan(self, sizes: Sizes, keep: float) -> list[int]:
        """Return the patch tokens left by each block. Raises UsageError if `keep` is not that of the training."""
        if keep != self.keep:
            raise UsageError(f"{self.title} was trained for keep {self.keep:g}; {keep:g} needs a separate training")
        return slimmed(sizes, keep)

    def flops(self, sizes: Sizes, counts: Counts) -> int:
        """Return the FLOPs of the slimmers, which are layers of the network."""
        entering = [attending - sizes.prefix for attending, _ in counts]
        half, total = sizes.width // 2, 0
        for stage in stages(sizes.depth):
            n = entering[stage]
            left = entering[stage + 1] if stage + 1 < len(entering) else slimmed(sizes, self.keep)[stage]
            total += 2 * (n * sizes.width * half + n * half * left + left * n * sizes.width)
        return total if self.slimmers and min(entering) < sizes.patches else 0

    def reduce(self, tokens: Tensor, seen: Attended, count: int, run: PruningState) -> Tensor:
        done = run.memory.get("slimmed", 0)
        run.memory["slimmed"] = done + 1
        return torch.cat([tokens[:, : run.prefix], self.slimmers[done](tokens[:, run.prefix :])], 1)


def slimmed(sizes: Sizes, keep: float) -> list[int]:
    """Return the patch tokens left by each block: floor(n keep^i) after stage i."""
    kept, passed = [], 0
    for block in range(sizes.depth):
        passed += block in stages(sizes.depth)
        kept.append(math.floor(sizes.patches * keep**passed))
    return kept
