"""Variable length: how many of the first tokens a decoder gets in training, so that it learns to live with fewer."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Draw = Literal["uniform", "pow2", "uniform_pow2"]


def tail_drop(count: int) -> int:
    """How many of `count` tokens a whole batch keeps: 1 to `count`, each as often (One-D-Piece, arXiv:2501.10064)."""
    return int(torch.randint(1, count + 1, ()))


def nested_keep(batch: int, count: int, draw: Draw = "uniform_pow2") -> Tensor:
    """How many of the first tokens each image keeps, int64 (B,) (FlexTok's nested dropout, arXiv:2502.13967).

    `uniform`: 1 to `count`. `pow2`: 1, 2, 4 ... `count`, each as often. `uniform_pow2`: uniform, rounded up to a power
    of two, so that half of the images keep all of 2^k tokens.
    """
    if draw == "pow2":
        return 2 ** torch.randint(0, count.bit_length(), (batch,))
    kept = torch.randint(1, count + 1, (batch,))
    return kept if draw == "uniform" else (2.0 ** kept.float().log2().ceil()).long().clamp(max=count)


def prefix(kept: Tensor, count: int) -> Tensor:
    """Lengths (B,) as a mask (B, count), True for the first ones."""
    return torch.arange(count, device=kept.device) < kept[:, None]
