"""How DiffRate's rates are learned: the network stays as it is, only how many tokens each block keeps moves."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.errors import DataError, UsageError
from tokbench.nn.trainable import Trainable, TrainingBatch
from tokbench.pruning.diffrate import Rates
from tokbench.pruning.flops import dense, flops
from tokbench.pruning.pruner import budget
from tokbench.pruning.vit import identity, look, recognise, told

GRANULARITY = 4
"""Tokens between two candidates."""
PENALTY = 100.0
"""Of the squared gap to the budget, as a share of the dense FLOPs; the authors' 5 on GMAC of DeiT-S is 106."""


class Kept(nn.Module):
    """A learned number of tokens: probabilities over candidates n, n - 4, n - 8 ..., at first nearly all on n."""

    counts: Tensor

    def __init__(self, tokens: int) -> None:
        super().__init__()
        counts = torch.arange(tokens, 1, -GRANULARITY).float()
        self.register_buffer("counts", counts, persistent=False)
        start = torch.zeros(len(counts))
        start[0] = torch.tensor(9.0 * len(counts)).log()
        self.logits = nn.Parameter(start)

    def forward(self) -> Tensor:
        """Expected number, rounded up; the gradient passes as if it were not rounded."""
        expected = (self.logits.softmax(0) * self.counts).sum()
        return expected + (expected.ceil() - expected).detach()

    def mask(self, count: Tensor, places: int) -> Tensor:
        """1 for the first `count` of (places,), else 0, with the gradient of the probability that a place is kept."""
        place = torch.arange(places, device=self.counts.device)
        chance = (self.logits.softmax(0) * (place[:, None] < self.counts)).sum(1)
        hard = (place < count.detach()).float()
        return hard + chance - chance.detach()


class RateSearch(Trainable):
    """Rates of all blocks but the first for a frozen transformer, to the FLOPs of `keep`.

    Nothing is removed while they are learned: dropped tokens are masked, merged ones hand themselves over and are then
    masked. Loss: cross-entropy, and PENALTY times the squared gap to the budget.
    """

    penalty = PENALTY

    def __init__(self, classifier: nn.Module, keep: float) -> None:
        super().__init__()
        self.bases = {"classifier": classifier}
        vit = recognise(self.vit)
        if not vit.sizes.cls or vit.sizes.prefix != 1:
            raise UsageError(
                "rates are learned for transformers with a CLS token and no other token before the patches"
            )
        self.sizes, self.keep, tokens = vit.sizes, keep, vit.sizes.patches + 1
        self.prune = nn.ModuleList(Kept(tokens) for _ in range(vit.sizes.depth - 1))
        self.merge = nn.ModuleList(Kept(tokens) for _ in range(vit.sizes.depth - 1))

    @property
    def vit(self) -> Any:
        return self.bases["classifier"].vit

    @staticmethod
    def _kept(numbers: nn.ModuleList, place: int) -> Kept:
        found = numbers[place - 1]
        assert isinstance(found, Kept)
        return found

    def counts(self) -> tuple[list[Tensor], list[Tensor]]:
        """Tokens after pruning and after merging of every block, made so that they never rise."""
        whole = torch.tensor(float(self.sizes.patches + 1), device=next(self.parameters()).device)
        pruned, merged = [whole], [whole]
        for prune, merge in zip(self.prune, self.merge, strict=True):
            pruned.append(torch.minimum(prune(), merged[-1]))
            merged.append(torch.minimum(merge(), pruned[-1]))
        return pruned, merged

    def rates(self) -> Rates:
        """As they are now, in whole tokens; at least CLS and one patch stay."""
        with torch.no_grad():
            pruned, merged = self.counts()
        return Rates(*(tuple(max(2, int(count)) for count in counts) for counts in (pruned, merged)))

    def share(self, merged: list[Tensor]) -> Tensor:
        """The FLOPs of those counts over the dense network's."""
        entering = [merged[0], *merged[:-1]]
        made: Any = flops(self.sizes, list(zip(entering, merged, strict=True)))  # type: ignore[arg-type]
        return made / flops(self.sizes, dense(self.sizes))

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        if batch.labels is None:
            raise DataError("rates are learned from labels, which this data set does not have")
        pruned, merged = self.counts()
        aim = budget(self.sizes, self.keep) / flops(self.sizes, dense(self.sizes))
        gap = self.share(merged) - aim
        named = F.cross_entropy(self._logits(batch.images, pruned, merged).float(), batch.labels)
        return {"classes": named, "budget": self.penalty * gap.square()}

    def _logits(self, images: Tensor, pruned: list[Tensor], merged: list[Tensor]) -> Tensor:
        vit = self.vit
        x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
        there = sizes = x.new_ones(x.shape[:2])
        for place, block in enumerate(vit.blocks):
            update, seen = _masked(block.attn, block.norm1(x), there, sizes)
            x = x + identity(block, "ls1", update)
            if place:
                x, there, sizes = self._step(place, x, there, sizes, seen, pruned[place], merged[place])
            x = x + identity(block, "ls2", block.mlp(block.norm2(x)))
        return vit.forward_head(vit.norm(x))

    def _step(
        self, place: int, x: Tensor, there: Tensor, sizes: Tensor, seen: Tensor, pruned: Tensor, merged: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One block's pruning and merging by masks `there` (B, N) of 1 and 0, tokens in their places."""
        scores = seen.detach().masked_fill(there.detach() < 0.5, -1)
        scores[:, 0] = torch.inf  # CLS is always first
        rank = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        after_pruning = self._kept(self.prune, place).mask(pruned, x.shape[1])[rank]
        after_merging = self._kept(self.merge, place).mask(merged, x.shape[1])[rank]
        hard = there.detach() > 0.5
        goes = hard & (after_pruning.detach() > 0.5) & (after_merging.detach() < 0.5)
        takes = hard & (after_merging.detach() > 0.5)
        takes[:, 0] = False
        unit = F.normalize(x.detach(), dim=-1)
        near = (unit @ unit.transpose(1, 2)).masked_fill(~takes[:, None], -2)
        similar, to = near.max(2)
        gone = goes.to(x.dtype)
        wide = to[..., None].expand_as(x)
        met = torch.ones_like(sizes).scatter_add(1, to, gone)
        x = x.scatter_add(1, wide, x * gone[..., None]) / met[..., None]
        sizes = sizes.scatter_add(1, to, sizes * similar.clamp(0, 1) * gone)
        return x, there * after_pruning * after_merging, sizes


def _masked(attention: Any, x: Tensor, there: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Attention among the tokens that are `there`, proportional to sizes, with a gradient to the mask; and what CLS
    looks at, (B, N). Each token sees itself, so that the masked ones have something to see."""
    seen = look(attention, x, sizes.log()[:, None, None])
    own = torch.eye(x.shape[1], device=x.device)
    weights = seen.map() * (there[:, None, None] * (1 - own) + own)
    weights = weights / weights.sum(-1, keepdim=True)
    return told(attention, x, weights @ seen.value), weights[:, :, 0].mean(1)
