"""Training of SiT's slimmers and their network by labels and by distillation from the full network."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.classifier import Classifier
from tokbench.nn.trainable import TrainingBatch
from tokbench.pruning.pruner import stages
from tokbench.pruning.sit_slim import SiTSlim, Slimmer, slimmed
from tokbench.pruning.vit import recognise


class Recovery(nn.Module):
    """Maps `count` tokens back to n, only for training (RTSM): an MLP over tokens, then one over channels."""

    def __init__(self, width: int, count: int, n: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(count, 4 * n), nn.GELU(), nn.Linear(4 * n, n))
        self.channels = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        mixed = self.tokens(self.norm(tokens).transpose(1, 2)).transpose(1, 2)
        return mixed + self.channels(mixed)


class Slimmed(Classifier):
    """A copy of a trained transformer with slimmers, distilled from the original.

    logits, features: loss weights of the teacher's logits (KL) and of its tokens (MSE, mean over the blocks after the
    first slimmer). The paper uses 2 for both; 0 disables a term.
    """

    kept_out = ("recoveries.", "imitation.")

    def __init__(self, teacher: Classifier, keep: float, logits: float = 2.0, features: float = 2.0) -> None:
        super().__init__(copy.deepcopy(teacher.vit).requires_grad_(True), teacher.classes, teacher.augment)
        self.bases = {"teacher": teacher}
        self.logits, self.features = logits, features
        vit = recognise(self.vit)
        self.kept = slimmed(vit.sizes, keep)
        counts = [self.kept[block] for block in stages(vit.sizes.depth)]
        self.slimmers = nn.ModuleList(Slimmer(vit.sizes.width, count) for count in counts)
        self.pruner, self.keep = SiTSlim(list(self.slimmers), keep), keep

    def ready(self, device: str) -> None:
        sizes = recognise(self.vit).sizes
        if self.features:
            counts = [count for count in self.kept if count < sizes.patches]
            self.recoveries = nn.ModuleList(Recovery(sizes.width, count, sizes.patches) for count in counts).to(device)

    def forward(self, images: Tensor) -> Tensor:
        with self.pruner.applied_to(self.vit, self.keep):
            return self.vit(images)

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        images, labels = self.prepared(batch)
        with torch.no_grad():
            teacher_logits, teacher_tokens = _with_tokens(self.bases["teacher"].vit, images)
        with self.pruner.applied_to(self.vit, self.keep) as run:
            logits, tokens = _with_tokens(self.vit, images)
        terms = {"classes": F.cross_entropy(logits.float(), labels, label_smoothing=0.1)}
        if self.logits:
            divergence = F.kl_div(
                logits.float().log_softmax(1), teacher_logits.float().softmax(1), reduction="batchmean"
            )
            terms["logits"] = self.logits * divergence
        if self.features:
            fewer = [block for block, count in enumerate(run.kept) if count < run.vit.sizes.patches]
            gaps = [
                (recovery(tokens[block][:, run.prefix :]) - teacher_tokens[block][:, run.prefix :])
                .float()
                .square()
                .mean()
                for recovery, block in zip(self.recoveries, fewer, strict=True)
            ]
            terms["features"] = self.features * torch.stack(gaps).mean()
        return terms


def _with_tokens(vit: Any, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the logits and the output tokens (B, N, D) of each block."""
    tokens: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda block, inputs, output: tokens.append(output)) for block in vit.blocks]
    try:
        return vit(images), tokens
    finally:
        for hook in hooks:
            hook.remove()
