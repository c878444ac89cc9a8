"""DiffRate: the numbers of tokens that each block drops and merges are learned (Chen et al., ICCV 2023).

arXiv:2305.17997
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.errors import UsageError
from tokbench.pruning.pruner import Pruner, PruningState, Training, nearest, pick
from tokbench.pruning.vit import Attended, Sizes


@dataclass(frozen=True)
class Rates:
    """Numbers of tokens, including CLS, after pruning and after merging in each block."""

    prune: tuple[int, ...]
    merge: tuple[int, ...]

    def __post_init__(self) -> None:
        falls = all(first >= second for first, second in zip(self.merge, self.merge[1:], strict=False))
        fits = len(self.prune) == len(self.merge) and all(p >= m for p, m in zip(self.prune, self.merge, strict=True))
        if not fits or not falls or min(self.merge, default=0) < 2:
            raise UsageError(
                "rates must list the tokens of each block after pruning and after merging; merging must not increase "
                "the number, numbers must not increase from block to block, and at least CLS and one patch must remain"
            )

    @classmethod
    def falling(cls, prune: tuple[int, ...], merge: tuple[int, ...]) -> Rates:
        """Build rates from counts that may increase from block to block, as some of the authors' do.

        As in the authors' code, each count is limited to the tokens that enter its block. Raises UsageError for invalid
        rates.
        """
        if len(prune) != len(merge):
            return cls(prune, merge)
        pruned, merged, entering = [], [], max(prune, default=0)
        for after_pruning, after_merging in zip(prune, merge, strict=True):
            pruned.append(min(entering, after_pruning))
            entering = min(pruned[-1], after_merging)
            merged.append(entering)
        return cls(tuple(pruned), tuple(merged))


DEIT_S = Rates(
    (197, 196, 190, 168, 150, 139, 129, 117, 99, 78, 58, 3), (197, 194, 176, 156, 141, 133, 121, 107, 88, 64, 56, 3)
)
"""The authors' rates for DeiT-S at 2.9 GMAC (compression_rate.json of OpenGVLab/DiffRate)."""


class DiffRate(Pruner):
    """In each block, tokens are sorted by the attention of CLS; the last ones are dropped.

    The last of the remaining tokens are merged into the most similar of the others. Attention is proportional to token
    sizes. rates: learned (`tokbench.pruning.search`) or published.
    """

    title, source = "DiffRate", "arXiv:2305.17997"
    training: ClassVar[Training] = "rates"
    needs_cls = True
    proportional = True

    def __init__(self, rates: Rates | None = None) -> None:
        self.rates = rates

    def plan(self, sizes: Sizes, keep: float) -> list[int]:
        """Return the patch tokens after each block. Raises UsageError if the rates are for a different transformer."""
        assert self.rates is not None, "the rates are given, or the subclass overrides this method"
        merge, first = self.rates.merge, self.rates.prune[0]
        if len(merge) != sizes.depth or first != sizes.patches + 1:
            raise UsageError(
                f"rates for {len(merge)} blocks and {first} tokens do not fit {sizes.depth} blocks and "
                f"{sizes.patches + 1} tokens (the first block keeps all tokens)"
            )
        return [count - 1 for count in merge]

    def reduce(self, tokens: Tensor, seen: Attended, count: int, run: PruningState) -> Tensor:
        prefix, block = run.prefix, len(run.counts)
        left = self.between(block, tokens.shape[1] - prefix, count)
        order = seen.cls()[:, prefix:].argsort(dim=1, descending=True, stable=True)[:, :left]
        sizes = run.sizes_of(tokens)
        kept = pick(tokens, order, prefix)
        of = torch.cat([sizes[:, :prefix], sizes.gather(1, order + prefix)], 1)
        if left > count:
            merged, grown = absorb(kept[:, prefix:], of[:, prefix:], count)
            kept, of = torch.cat([kept[:, :prefix], merged], 1), torch.cat([of[:, :prefix], grown], 1)
        run.sizes = of
        return kept

    def between(self, block: int, entering: int, count: int) -> int:
        """Return the number of patch tokens after pruning; merging then reduces it to `count`."""
        assert self.rates is not None
        return min(entering, max(count, self.rates.prune[block] - 1))


class UniformRate(DiffRate):
    """Control without learning: every block except the first removes the same number; half dropped, half merged."""

    title, source = "DiffRate (uniform rates)", "control of arXiv:2305.17997"
    training = "none"

    def plan(self, sizes: Sizes, keep: float) -> list[int]:
        plans = [
            [max(sizes.patches - block * each, 1) for block in range(sizes.depth)] for each in range(sizes.patches // 2)
        ]
        return nearest(sizes, keep, plans)

    def between(self, block: int, entering: int, count: int) -> int:
        return count + (entering - count) // 2


def absorb(tokens: Tensor, sizes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Merge tokens (B, n, D) of sizes (B, n), sorted by importance, into the first `count` of them.

    Each other token is merged into the most similar of the first `count`, as an unweighted mean. As in the authors'
    code, its size times the cosine (clamped to [0, 1]) is added to the size. Returns tokens (B, count, D) and sizes
    (B, count).
    """
    stay, go = tokens[:, :count], tokens[:, count:]
    similar, to = (F.normalize(go, dim=-1) @ F.normalize(stay, dim=-1).transpose(1, 2)).max(2)
    wide = to[..., None].expand_as(go)
    met = torch.ones_like(sizes[:, :count]).scatter_add(1, to, torch.ones_like(similar))
    merged = stay.scatter_add(1, wide, go) / met[..., None]
    grown = sizes[:, :count].scatter_add(1, to, sizes[:, count:] * similar.clamp(0, 1))
    return merged, grown
