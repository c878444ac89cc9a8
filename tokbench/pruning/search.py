"""Training of DiffRate's rates: the network is frozen, only the token counts of the blocks are learned."""

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
from tokbench.pruning.vit import identity, project_output, project_qkv, recognise

GRANULARITY = 4
"""Difference between two candidate token counts."""
PENALTY = 100.0
"""Loss weight of the squared gap to the budget, relative to the dense FLOPs; the authors' 5 per GMAC^2 of DeiT-S
corresponds to 106."""


class Kept(nn.Module):
    """A learned number of tokens: probabilities over candidates n, n - 4, n - 8 ..., initially almost all on n."""

    counts: Tensor

    def __init__(self, tokens: int) -> None:
        super().__init__()
        counts = torch.arange(tokens, 1, -GRANULARITY).float()
        self.register_buffer("counts", counts, persistent=False)
        start = torch.zeros(len(counts))
        start[0] = torch.tensor(9.0 * len(counts)).log()
        self.logits = nn.Parameter(start)

    def forward(self) -> Tensor:
        """Return the expected number, rounded up, with a straight-through gradient."""
        expected = (self.logits.softmax(0) * self.counts).sum()
        return expected + (expected.ceil() - expected).detach()

    def mask(self, count: Tensor, places: int) -> Tensor:
        """Return a mask (places,) of the first `count` places, with the gradient of the probability of keeping each."""
        place = torch.arange(places, device=self.counts.device)
        chance = (self.logits.softmax(0) * (place[:, None] < self.counts)).sum(1)
        hard = (place < count.detach()).float()
        return hard + chance - chance.detach()


class RateSearch(Trainable):
    """Learns the rates of all blocks except the first for a frozen transformer, with the FLOP budget of `keep`.

    No token is removed during training: dropped tokens are masked; merged tokens are added to another token and then
    masked. Loss: cross-entropy plus PENALTY times the squared gap to the budget.
    """

    penalty = PENALTY

    def __init__(self, classifier: nn.Module, keep: float) -> None:
        super().__init__()
        self.bases = {"classifier": classifier}
        vit = recognise(self.vit)
        if not vit.sizes.cls or vit.sizes.prefix != 1:
            raise UsageError("rates can be learned only for transformers with a CLS token and no other prefix token")
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
        """Return the token counts of every block after pruning and after merging; they never increase."""
        whole = torch.tensor(float(self.sizes.patches + 1), device=next(self.parameters()).device)
        pruned, merged = [whole], [whole]
        for prune, merge in zip(self.prune, self.merge, strict=True):
            pruned.append(torch.minimum(prune(), merged[-1]))
            merged.append(torch.minimum(merge(), pruned[-1]))
        return pruned, merged

    def rates(self) -> Rates:
        """Return the current rates in whole tokens; at least CLS and one patch remain."""
        with torch.no_grad():
            pruned, merged = self.counts()
        return Rates(*(tuple(max(2, int(count)) for count in counts) for counts in (pruned, merged)))

    def share(self, merged: list[Tensor]) -> Tensor:
        """Return the FLOPs of these counts relative to the dense network."""
        entering = [merged[0], *merged[:-1]]
        reduced: Any = flops(self.sizes, list(zip(entering, merged, strict=True)))  # type: ignore[arg-type]
        return reduced / flops(self.sizes, dense(self.sizes))

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        if batch.labels is None:
            raise DataError("the training of DiffRate's rates needs labels, which this dataset does not have")
        pruned, merged = self.counts()
        target = budget(self.sizes, self.keep) / flops(self.sizes, dense(self.sizes))
        gap = self.share(merged) - target
        classifier: Any = self.bases["classifier"]
        logits = self._logits(classifier.enlarged(batch.images), pruned, merged)
        named = F.cross_entropy(logits.float(), batch.labels)
        return {"classes": named, "budget": self.penalty * gap.square()}

    def _logits(self, images: Tensor, pruned: list[Tensor], merged: list[Tensor]) -> Tensor:
        vit = self.vit
        x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
        present = sizes = x.new_ones(x.shape[:2])
        for place, block in enumerate(vit.blocks):
            update, seen = _masked(block.attn, block.norm1(x), present, sizes)
            x = x + identity(block, "ls1", update)
            if place:
                x, present, sizes = self._step(place, x, present, sizes, seen, pruned[place], merged[place])
            x = x + identity(block, "ls2", block.mlp(block.norm2(x)))
        return vit.forward_head(vit.norm(x))

    def _step(
        self, place: int, x: Tensor, present: Tensor, sizes: Tensor, seen: Tensor, pruned: Tensor, merged: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Prune and merge the tokens of one block by the mask `present` (B, N); tokens keep their positions."""
        scores = seen.detach().masked_fill(present.detach() < 0.5, -1)
        scores[:, 0] = torch.inf  # CLS always ranks first
        rank = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        after_pruning = self._kept(self.prune, place).mask(pruned, x.shape[1])[rank]
        after_merging = self._kept(self.merge, place).mask(merged, x.shape[1])[rank]
        hard = present.detach() > 0.5
        merging = hard & (after_pruning.detach() > 0.5) & (after_merging.detach() < 0.5)
        receiving = hard & (after_merging.detach() > 0.5)
        receiving[:, 0] = False
        unit = F.normalize(x.detach(), dim=-1)
        near = (unit @ unit.transpose(1, 2)).masked_fill(~receiving[:, None], -2)
        similar, to = near.max(2)
        merged_mask = merging.to(x.dtype)
        wide = to[..., None].expand_as(x)
        met = torch.ones_like(sizes).scatter_add(1, to, merged_mask)
        x = x.scatter_add(1, wide, x * merged_mask[..., None]) / met[..., None]
        sizes = sizes.scatter_add(1, to, sizes * similar.clamp(0, 1) * merged_mask)
        return x, present * after_pruning * after_merging, sizes


def _masked(attention: Any, x: Tensor, present: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Return attention among the `present` tokens, proportional to sizes, and the attention of CLS, (B, N).

    Gradients flow to the mask. Each token attends to itself, so that rows of masked tokens can be normalized.
    """
    seen = project_qkv(attention, x, sizes.log()[:, None, None])
    own = torch.eye(x.shape[1], device=x.device)
    weights = seen.map() * (present[:, None, None] * (1 - own) + own)
    weights = weights / weights.sum(-1, keepdim=True)
    return project_output(attention, x, weights @ seen.value), weights[:, :, 0].mean(1)
