"""Base class of priors over discrete tokens: embeddings of codes, classes and positions, and the output head."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.priors.prior import Prior
from tokbench.tokenizers.base import Tokenizer


class Embedding(nn.Module):
    """Embeds indices (B, N, G) as vectors (B, N, width), the sum of the embeddings of the G groups."""

    def __init__(self, codes: int, groups: int, width: int) -> None:
        super().__init__()
        self.table = vectors(groups * codes, width)
        self.register_buffer("offsets", torch.arange(groups) * codes, persistent=False)
        self.offsets: Tensor

    def forward(self, rows: Tensor) -> Tensor:
        return F.embedding(rows.long() + self.offsets, self.table).sum(2)


def vectors(*shape: int) -> nn.Parameter:
    """Return learned vectors (..., width), initialised from a normal distribution with a length of about 1."""
    return nn.Parameter(torch.randn(*shape) * shape[-1] ** -0.5)


class IndexPrior(Prior):
    """A prior over indices, with embeddings and an output head.

    merged: number of tokens that form one input of the network and so have one position embedding. The label embedding
    has one vector per class and a last one for no class. The head starts with zeros, so all codes are equally likely.
    """

    def __init__(self, tokenizer: Tokenizer, size: int, classes: int, width: int, merged: int = 1) -> None:
        super().__init__(tokenizer, size, classes)
        self.embed = Embedding(self.codes, self.depth, width)
        self.label = vectors(classes + 1, width)
        self.positions = vectors(self.count // merged, width)
        self.head = nn.Linear(width, self.depth * self.codes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def code_logits(self, out: Tensor) -> Tensor:
        """Map features (..., width) to logits (..., G, K)."""
        return self.head(out).unflatten(-1, (self.depth, self.codes))
