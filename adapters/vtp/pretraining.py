"""The two losses beside reconstruction: contrast with captions (CLIP) and self-distillation (DINO and iBOT)."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.losses import TEMPERATURE, contrast
from tokbench.nn.patch_masking import visible_patches
from tokbench.nn.text import TextEncoder, pool_words
from tokbench.nn.vit import initialise

COMMON = 64
"""Width of the text encoder, and number of values of the space that images, captions and prototypes share."""

PROTOTYPES = 1024
STUDENT, TEACHER = 0.1, 0.05
"""Temperatures of the student's and the teacher's probabilities of prototypes."""

MOMENTUM, LAST_MOMENTUM = 0.99, 1.0
"""Decay of the moving averages that form the teacher, at the start and at the end of the training."""

CENTRING = 0.9
"""Decay of the moving average of the teacher's outputs, which is subtracted from them."""

MASKED_IMAGES, RATIOS = 0.5, (0.1, 0.5)
"""Share of the wide crops with masked patches, and the range of the share of their patches that are masked."""


class Contrastive(nn.Module):
    """The contrastive loss of images and captions (CLIP, arXiv:2103.00020), with a small text transformer.

    Images whose captions are equal count as equal pairs. Only the training uses it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.captions, self.text = TextEncoder(COMMON), nn.Linear(COMMON, COMMON).apply(initialise)
        self.image = nn.Linear(width, COMMON).apply(initialise)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / TEMPERATURE)))

    def forward(self, cls: Tensor, words: Tensor) -> Tensor:
        """Return the loss, a scalar, for features of images (B, width) and their captions, int64 (B, L)."""
        text = self.text(pool_words(self.captions(words)))
        same = (words[:, None] == words[None]).all(-1)
        return contrast(self.image(cls), text, same, self.log_scale.exp().clamp(max=100))


class Prototypes(nn.Module):
    """The head of self-distillation: features (..., width) to logits of prototypes (..., PROTOTYPES)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, COMMON))
        self.prototypes = nn.Linear(COMMON, PROTOTYPES, bias=False)
        self.apply(initialise)

    def forward(self, features: Tensor) -> Tensor:
        directions = F.normalize(self.prototypes.weight.float(), dim=-1)
        return (F.normalize(self.body(features).float(), dim=-1) @ directions.T).float()  # autocast rounds products


class SelfDistillation(nn.Module):
    """A teacher, the moving average of the encoder, whose outputs the encoder predicts (DINO, arXiv:2104.14294).

    From narrow crops and from the other wide crop, the encoder predicts the prototypes of the whole crop; at masked
    patches, those of the patches (iBOT, arXiv:2111.07832). Only the training uses it.
    """

    centres: Tensor

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.head = Prototypes(width)
        self.averaged = nn.ModuleList([copy.deepcopy(encoder), copy.deepcopy(self.head)]).requires_grad_(False)
        self.register_buffer("centres", torch.zeros(2, PROTOTYPES))

    @torch.no_grad()
    def follow(self, encoder: nn.Module, progress: float) -> None:
        """Move the teacher towards the encoder and its head."""
        momentum = LAST_MOMENTUM - (LAST_MOMENTUM - MOMENTUM) * (math.cos(math.pi * progress) + 1) / 2
        for averaged, current in zip(self.averaged, (encoder, self.head), strict=True):
            for kept, new in zip(averaged.parameters(), current.parameters(), strict=True):
                kept.lerp_(new, 1 - momentum)

    @torch.no_grad()
    def targets(self, wide: Tensor) -> tuple[Tensor, Tensor]:
        """Return the teacher's probabilities for crops (2 B, P) and for their patches (2 B, N, P)."""
        encoder, head = self.averaged
        logits = [head(features) for features in encoder(wide)]
        found = [((part - centre) / TEACHER).softmax(-1) for part, centre in zip(logits, self.centres, strict=True)]
        means = torch.stack([part.flatten(0, -2).mean(0) for part in logits])
        self.centres.lerp_(means, 1 - CENTRING)
        return found[0], found[1]

    def forward(self, encoder: nn.Module, wide: Tensor, narrow: Tensor, progress: float) -> Tensor:
        """Return the loss, a scalar, for two wide crops of each image (2 B, 3, H, H) and two narrow ones.

        The crops of one kind are sorted by view and then by image.
        """
        self.follow(encoder, progress)
        views, patches = self.targets(wide)
        masked = masks(len(wide), patches.shape[1], wide.device)
        cls, features = encoder(wide, masked)
        crops, parts = self.log_probabilities(cls).chunk(2), views.chunk(2)
        small = self.log_probabilities(encoder(narrow)[0]).chunk(2)
        pairs = [(crops[0], parts[1]), (crops[1], parts[0]), *((one, part) for one in small for part in parts)]
        whole = torch.stack([-(part * found).sum(-1).mean() for found, part in pairs]).mean()
        return whole + -(patches[masked] * self.log_probabilities(features[masked])).sum(-1).mean()

    def log_probabilities(self, features: Tensor) -> Tensor:
        return (self.head(features) / STUDENT).log_softmax(-1)


def masks(crops: int, patches: int, device: torch.device) -> Tensor:
    """Draw the masked patches of each crop, bool (crops, patches); at least one crop has some."""
    low, high = RATIOS
    ratio = low + (high - low) * float(torch.rand(()))
    masked = torch.ones(crops, patches, dtype=torch.bool, device=device)
    masked.scatter_(1, visible_patches(crops, patches, ratio, device), False)
    used = torch.rand(crops) < MASKED_IMAGES
    used[0] = True
    return masked & used[:, None].to(device)
