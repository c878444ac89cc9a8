"""Product quantization: latents are split into equal parts, and each part has its own codebook."""

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
    """Quantizes G = `groups` parts of D / G values, each with its own `VectorQuantizer` (FQGAN, arXiv:2411.16681).

    options: as for `VectorQuantizer`, the same for all parts; each part is normalised separately. The loss is the sum
    over parts. Raises ValueError if `dim` is not a multiple of `groups`.
    """

    def __init__(
        self, groups: int, codebook_size: int, dim: int, *, normalised: bool = True, **options: Unpack[VQOptions]
    ) -> None:
        super().__init__()
        if dim % groups:
            raise ValueError(f"dim is {dim}, which is not a multiple of {groups} groups")
        self.groups, self.codebook_size, self.dim = groups, codebook_size, dim
        made = (VectorQuantizer(codebook_size, dim // groups, normalised=normalised, **options) for _ in range(groups))
        self.parts = cast("Sequence[VectorQuantizer]", nn.ModuleList(made))  # typed as a list of any modules

    whitened = False

    @property
    def start_parts(self) -> int:  # type: ignore[override]
        return self.groups

    def start(self, latents: Tensor) -> None:
        for part, piece in zip(self.parts, self.split(latents), strict=True):
            part.start(piece)

    def split(self, latents: Tensor) -> tuple[Tensor, ...]:
        """Split (..., D) into G parts (..., D / G)."""
        return latents.split(self.dim // self.groups, dim=-1)

    def forward(self, latents: Tensor) -> Quantized:
        """Quantize (B, N, D); the statistics `perplexity` and `used` of this batch are means over parts."""
        outputs = [part(piece) for part, piece in zip(self.parts, self.split(latents), strict=True)]
        indices = torch.cat([one.indices for one in outputs], dim=-1)
        loss = torch.stack([one.loss for one in outputs]).sum()
        vectors = torch.cat([one.vectors for one in outputs], dim=-1)
        return Quantized(vectors, indices, loss, usage(indices, self.codebook_size))

    def lookup(self, indices: Tensor) -> Tensor:
        """Map int64 (B, N, G) to vectors (B, N, D). Raises IndexError outside a codebook."""
        chosen = indices.split(1, dim=-1)
        return torch.cat([part.lookup(one) for part, one in zip(self.parts, chosen, strict=True)], dim=-1)

    def table(self) -> Tensor:
        """Return all entries (G, K, D / G)."""
        return torch.cat([part.table() for part in self.parts])

    def anchors(self, latents: Tensor) -> Tensor:
        """Split latents (B, N, D) into (B, N, G, D / G), normalised like the entries."""
        pieces = zip(self.parts, self.split(latents), strict=True)
        return torch.cat([part.anchors(piece) for part, piece in pieces], dim=2)


def disentangle(vectors: Sequence[Tensor]) -> Tensor:
    """Return FQGAN's disentanglement loss (arXiv:2411.16681), a scalar from 0 (orthogonal) to 1 (parallel).

    It is the squared cosine between the vectors (B, N, d) that two codebooks choose at one position, averaged over
    positions and pairs of codebooks. Raises ValueError for fewer than two codebooks.
    """
    if len(vectors) < 2:
        raise ValueError(f"disentanglement needs two or more codebooks, not {len(vectors)}")
    pairs = [F.cosine_similarity(one, other, dim=-1).square().mean() for one, other in combinations(vectors, 2)]
    return torch.stack(pairs).mean()
