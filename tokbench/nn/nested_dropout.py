"""Random token counts for training decoders of variable length (nested dropout, tail drop)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Draw = Literal["uniform", "pow2", "uniform_pow2"]


def tail_drop(count: int) -> int:
    """Draw the number of tokens that a whole batch keeps, uniform on 1 to `count` (One-D-Piece, arXiv:2501.10064)."""
    return int(torch.randint(1, count + 1, ()))


def nested_keep(batch: int, count: int, draw: Draw = "uniform_pow2") -> Tensor:
    """Draw the number of leading tokens that each image keeps, int64 (B,) (nested dropout, FlexTok, arXiv:2502.13967).

    draw: "uniform" on 1 to `count`; "pow2", uniform on 1, 2, 4, ... `count`; "uniform_pow2", uniform on 1 to `count`
    and then rounded up to a power of two, so that with `count` = 2^k half of the images keep all tokens.
    """
    if draw == "pow2":
        return 2 ** torch.randint(0, count.bit_length(), (batch,))
    kept = torch.randint(1, count + 1, (batch,))
    return kept if draw == "uniform" else (2.0 ** kept.float().log2().ceil()).long().clamp(max=count)


def prefix(kept: Tensor, count: int) -> Tensor:
    """Return the mask (B, count) that is True for the first `kept[i]` tokens of image i; kept is int64 (B,)."""
    return torch.arange(count, device=kept.device) < kept[:, None]
