"""What priors over discrete tokens share: a vector for each code, class and place, and logits of codes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.priors.prior import Prior
from tokbench.tokenizers.base import Tokenizer


class Embedding(nn.Module):
    """Rows of indices (B, N, G) as vectors (B, N, width): the sum of each group's."""

    def __init__(self, codes: int, groups: int, width: int) -> None:
        super().__init__()
        self.table = vectors(groups * codes, width)
        self.register_buffer("offsets", torch.arange(groups) * codes, persistent=False)
        self.offsets: Tensor

    def forward(self, rows: Tensor) -> Tensor:
        return F.embedding(rows.long() + self.offsets, self.table).sum(2)


def vectors(*shape: int) -> nn.Parameter:
    """Learned vectors (..., width), at first normal and about 1 long."""
    return nn.Parameter(torch.randn(*shape) * shape[-1] ** -0.5)


class IndexPrior(Prior):
    """label: a vector for each class, and behind them one for none. positions: one for each token, or for each of
    `merged` tokens that make one input. Logits are all zero at first: every code is as likely.
    """

    def __init__(self, tokenizer: Tokenizer, size: int, classes: int, width: int, merged: int = 1) -> None:
        super().__init__(tokenizer, size, classes)
        self.embed = Embedding(self.codes, self.depth, width)
        self.label = vectors(classes + 1, width)
        self.positions = vectors(self.count // merged, width)
        self.head = nn.Linear(width, self.depth * self.codes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def of_codes(self, out: Tensor) -> Tensor:
        """Features (..., width) to logits (..., G, K)."""
        return self.head(out).unflatten(-1, (self.depth, self.codes))
