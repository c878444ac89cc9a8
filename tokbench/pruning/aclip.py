"""Contrastive training of images and captions in which the image encoder sees a part of the patches (A-CLIP).

Only the training is reduced: the trained encoder sees all patches.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.data.synthetic.textured import prompts
from tokbench.data.vocabulary import encode_captions
from tokbench.errors import DataError, UsageError
from tokbench.nn.classifier import Classifier
from tokbench.nn.text import TextEncoder, pool_words
from tokbench.nn.trainable import Trainable, TrainingBatch
from tokbench.pruning.vit import project_qkv

Masking = Literal["full", "random", "attentive", "oracle"]
"""Which patches the image encoder sees in training: all, random ones, those that a moving average of it attends to, or
those of the object's box."""

_LARGEST = 100.0
"""The largest factor of the cosines, as in CLIP."""


class AClip(Trainable):
    """An image encoder and a text encoder that are trained to match (arXiv:2212.08653, without its self-supervised
    losses and with one view of each image).

    vit: timm's vision transformer with a CLS token, whose head maps to the common space. text: width and depth of the
    text encoder. keep: share of the patches that the image encoder sees in training. momentum: of the moving average of
    the encoder, whose attention from the CLS token, the mean over heads and layers, scores the patches of the whole
    image. Its scores are averaged over cells of 2x2 patches.
    """

    kept_out = ("teacher.",)

    def __init__(
        self, vit: nn.Module, text: tuple[int, int], masking: Masking, keep: float = 0.5, momentum: float = 0.996
    ) -> None:
        """Raises UsageError for an unknown masking or a keep outside (0, 1]."""
        super().__init__()
        if masking not in ("full", "random", "attentive", "oracle") or not 0 < keep <= 1:
            raise UsageError(
                f"masking = '{masking}', keep = {keep:g}: masking must be full, random, attentive or oracle, and keep "
                "must be in (0, 1]"
            )
        self.vit, self.masking, self.keep, self.momentum = vit, masking, keep, momentum
        head: Any = vit.head
        self.text, self.text_head = TextEncoder(*text), nn.Linear(text[0], head.out_features)
        self.scale = nn.Parameter(torch.tensor(1 / 0.07).log())

    def ready(self, device: str) -> None:
        if self.masking == "attentive":
            self.teacher = copy.deepcopy(self.vit).requires_grad_(False).to(device)

    def embed_captions(self, captions: Tensor) -> Tensor:
        """Return the unit vectors (B, E) of captions (B, L)."""
        return F.normalize(self.text_head(pool_words(self.text(captions))), dim=1)

    def embed_images(self, images: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return the unit vectors (B, E) of images (B, 3, H, W) in [-1, 1], from the patches kept (B, k) or all."""
        vit: Any = self.vit
        x = _blocks(vit, _tokens(vit, images, kept))
        return F.normalize(vit.head(vit.norm(x)[:, 0]), dim=1)

    def kept(self, batch: TrainingBatch) -> Tensor | None:
        """Return the patches of each image that the encoder sees, int64 (B, k); None for all.

        Raises DataError if boxes are needed and the dataset has none.
        """
        if self.masking == "full" or self.keep == 1:
            return None
        vit: Any = self.vit
        side = vit.patch_embed.grid_size[0]
        scores = torch.rand(len(batch.images), side**2, device=batch.images.device)
        if self.masking == "attentive":
            scores = cell_means(cls_attention(self.teacher, batch.images), side)
        elif self.masking == "oracle":
            if batch.boxes is None:
                raise DataError("the oracle mask needs boxes, and this dataset has none; use --data textured-train")
            scores = scores + overlaps(batch.boxes, side)
        return scores.topk(round(self.keep * side**2), dim=1).indices

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        if batch.captions is None:
            raise DataError("contrastive training needs captions, and this dataset has none")
        if self.training and self.masking == "attentive":
            self._average()
        images, captions = self.embed_images(batch.images, self.kept(batch)), self.embed_captions(batch.captions)
        logits = self.scale.exp().clamp(max=_LARGEST) * images.float() @ captions.float().T
        # Images with equal captions match as well.
        same = (batch.captions[:, None] == batch.captions[None]).all(2).float()
        same = same / same.sum(1, keepdim=True)
        return {"contrast": (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 2}

    @torch.no_grad()
    def _average(self) -> None:
        for own, current in zip(self.teacher.parameters(), self.vit.parameters(), strict=True):
            own.lerp_(current, 1 - self.momentum)

    @torch.no_grad()
    def zero_shot(self, captions: Sequence[Sequence[str]] | None = None) -> Classifier:
        """Return the classifier whose classes are those of the nearest captions; it sees all patches.

        captions: several for each class, whose mean vector is that of the class; None for those of `textured`. The
        length of an image's vector does not change the order of its classes, so logits are not divided by it.
        """
        given = prompts() if captions is None else captions
        device = self.scale.device
        vectors = [self.embed_captions(encode_captions(list(own)).to(device)).mean(0) for own in given]
        classes = F.normalize(torch.stack(vectors), dim=1)
        vit: Any = copy.deepcopy(self.vit)
        before, head = vit.head, nn.Linear(vit.head.in_features, len(classes), device=device)
        head.weight.copy_(classes @ before.weight)
        head.bias.copy_(classes @ before.bias)
        vit.head, vit.num_classes = head, len(classes)
        return Classifier(vit, len(classes), augment=False)


def _tokens(vit: Any, images: Tensor, kept: Tensor | None = None) -> Tensor:
    """Return the CLS token and the embedded patches (B, 1 + k, D) of images."""
    x, positions = vit.patch_embed(images), vit.pos_embed
    x = x + positions[:, 1:]
    if kept is not None:
        x = x.gather(1, kept[:, :, None].expand(-1, -1, x.shape[2]))
    first = (vit.cls_token + positions[:, :1]).expand(len(x), -1, -1)
    return torch.cat([first, x], dim=1)


def _blocks(vit: Any, x: Tensor) -> Tensor:
    for block in vit.blocks:
        x = block(x)
    return x


@torch.no_grad()
def cls_attention(vit: Any, images: Tensor) -> Tensor:
    """Return the attention (B, N) of the CLS token to each patch, the mean over heads and layers."""
    x, total = _tokens(vit, images), None
    for block in vit.blocks:
        weights = project_qkv(block.attn, block.norm1(x)).cls()[:, 1:]
        total = weights if total is None else total + weights
        x = block(x)
    assert total is not None  # a transformer has blocks
    return total.float() / len(vit.blocks)


def cell_means(scores: Tensor, side: int) -> Tensor:
    """Return scores (B, side^2) of patches averaged over cells of 2x2 patches."""
    grid = F.avg_pool2d(scores.unflatten(1, (1, side, side)), 2)
    return F.interpolate(grid, scale_factor=2, mode="nearest").flatten(1)


def overlaps(boxes: Tensor, side: int) -> Tensor:
    """Return whether each patch of a grid meets a box (B, M, 5), 0 or 1 (B, side^2); boxes of class -1 do not count."""
    edges = torch.arange(side, device=boxes.device) / side
    low, high = edges, edges + 1 / side
    kind, left, top, right, bottom = (values[:, :, None] for values in boxes.unbind(2))
    columns, rows = (left < high) & (right > low), (top < high) & (bottom > low)
    meets = rows[:, :, :, None] & columns[:, :, None] & (kind >= 0)[..., None]
    return meets.any(1).flatten(1).float()
