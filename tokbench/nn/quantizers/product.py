"""Product quantization: the latents in equal parts, a codebook for each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Unpack, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.quantizers.quantizer import Quantized, Quantizer, usage
from tokbench.nn.quantizers.vq import VectorQuantizer, VQOptions


class ProductVQ(Quantizer):
    """G = `groups` parts of D / G latents, each with a `VectorQuantizer` of its own (FQGAN, 2411.16681).

    The loss is the sum over parts. Each part takes the options of `VectorQuantizer`, and is normalised by itself.
    Raises ValueError where `dim` does not divide.
    """

    def __init__(
        self, groups: int, codebook_size: int, dim: int, *, normalised: bool = True, **options: Unpack[VQOptions]
    ) -> None:
        super().__init__()
        if dim % groups:
            raise ValueError(f"{dim} values do not divide into {groups} parts")
        self.groups, self.codebook_size, self.dim = groups, codebook_size, dim
        made = (VectorQuantizer(codebook_size, dim // groups, normalised=normalised, **options) for _ in range(groups))
        self.parts = cast("Sequence[VectorQuantizer]", nn.ModuleList(made))  # torch types its lists as of any module

    def split(self, latents: Tensor) -> tuple[Tensor, ...]:
        """(..., D) to G parts (..., D / G)."""
        return latents.split(self.dim // self.groups, dim=-1)

    def forward(self, latents: Tensor) -> Quantized:
        """(B, N, D); statistics `perplexity` and `used` of this batch, means over parts."""
        done = [part(piece) for part, piece in zip(self.parts, self.split(latents), strict=True)]
        indices = torch.cat([one.indices for one in done], dim=-1)
        loss = torch.stack([one.loss for one in done]).sum()
        vectors = torch.cat([one.vectors for one in done], dim=-1)
        return Quantized(vectors, indices, loss, usage(indices, self.codebook_size))

    def lookup(self, indices: Tensor) -> Tensor:
        """int64 (B, N, G) to vectors (B, N, D). Raises IndexError outside a codebook."""
        chosen = indices.split(1, dim=-1)
        return torch.cat([part.lookup(one) for part, one in zip(self.parts, chosen, strict=True)], dim=-1)

    def table(self) -> Tensor:
        """(G, K, D / G)."""
        return torch.cat([part.table() for part in self.parts])

    def anchors(self, latents: Tensor) -> Tensor:
        """(B, N, D) to (B, N, G, D / G)."""
        pieces = zip(self.parts, self.split(latents), strict=True)
        return torch.cat([part.anchors(piece) for part, piece in pieces], dim=2)


def disentangle(vectors: Sequence[Tensor]) -> Tensor:
    """FQGAN's loss that makes codebooks say different things, a scalar from 0 (orthogonal) to 1 (parallel).

    Squared cosine between the vectors, (B, N, d) each, that two codebooks chose at one position; mean over positions
    and over pairs of codebooks. Raises ValueError for fewer than two.
    """
    if len(vectors) < 2:
        raise ValueError(f"there is nothing to disentangle in {len(vectors)} codebook(s)")
    pairs = [F.cosine_similarity(one, other, dim=-1).square().mean() for one, other in combinations(vectors, 2)]
    return torch.stack(pairs).mean()
