"""Product quantization: latents are split into parts, and each part has its own codebook or codebooks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Unpack, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.quantizers.quantizer import Quantized, Quantizer, usage
from tokbench.nn.quantizers.vq import VectorQuantizer, VQOptions


class Product(Quantizer):
    """Quantizes parts of each latent with quantizers of their own, in order; the parts' values and indices follow each
    other.

    The loss is the sum over parts. Raises ValueError unless all codebooks have the same size.
    """

    whitened = False

    def __init__(self, parts: Sequence[Quantizer]) -> None:
        super().__init__()
        sizes = {part.codebook_size for part in parts}
        if len(sizes) != 1:
            raise ValueError(f"the parts' codebooks must have one size, not {', '.join(map(str, sorted(sizes)))}")
        self.codebook_size, self.dim = sizes.pop(), sum(part.dim for part in parts)
        self.groups, self.start_parts = sum(part.groups for part in parts), len(parts)
        self.parts = cast("Sequence[Quantizer]", nn.ModuleList(parts))  # typed as a list of any modules

    def start(self, latents: Tensor) -> None:
        for part, piece in zip(self.parts, self.split(latents), strict=True):
            part.start(piece)

    def split(self, latents: Tensor) -> tuple[Tensor, ...]:
        """Split (..., D) into the values of the parts."""
        return latents.split([part.dim for part in self.parts], dim=-1)

    def forward(self, latents: Tensor) -> Quantized:
        """Quantize (B, N, D); the statistics `perplexity` and `used` of this batch are means over codebooks."""
        outputs = [part(piece) for part, piece in zip(self.parts, self.split(latents), strict=True)]
        indices = torch.cat([one.indices for one in outputs], dim=-1)
        loss = torch.stack([one.loss for one in outputs]).sum()
        vectors = torch.cat([one.vectors for one in outputs], dim=-1)
        return Quantized(vectors, indices, loss, usage(indices, self.codebook_size))

    def lookup(self, indices: Tensor) -> Tensor:
        """Map int64 (B, N, G) to vectors (B, N, D). Raises IndexError outside a codebook."""
        chosen = indices.split([part.groups for part in self.parts], dim=-1)
        return torch.cat([part.lookup(one) for part, one in zip(self.parts, chosen, strict=True)], dim=-1)

    def table(self) -> Tensor:
        """Return all entries (G, K, d)."""
        return torch.cat([part.table() for part in self.parts])

    def anchors(self, latents: Tensor) -> Tensor:
        """Return what each codebook quantizes, (B, N, G, d), normalised like the entries."""
        pieces = zip(self.parts, self.split(latents), strict=True)
        return torch.cat([part.anchors(piece) for part, piece in pieces], dim=2)


class ProductVQ(Product):
    """Quantizes G = `groups` parts of D / G values, each with its own `VectorQuantizer` (FQGAN, arXiv:2411.16681).

    options: as for `VectorQuantizer`, the same for all parts; each part is normalised separately. Raises ValueError if
    `dim` is not a multiple of `groups`.
    """

    def __init__(
        self, groups: int, codebook_size: int, dim: int, *, normalised: bool = True, **options: Unpack[VQOptions]
    ) -> None:
        if dim % groups:
            raise ValueError(f"dim is {dim}, which is not a multiple of {groups} groups")
        each = dim // groups
        super().__init__(
            [VectorQuantizer(codebook_size, each, normalised=normalised, **options) for _ in range(groups)]
        )


def disentangle(vectors: Sequence[Tensor]) -> Tensor:
    """Return FQGAN's disentanglement loss (arXiv:2411.16681), a scalar from 0 (orthogonal) to 1 (parallel).

    It is the squared cosine between the vectors (B, N, d) that two codebooks choose at one position, averaged over
    positions and pairs of codebooks. Raises ValueError for fewer than two codebooks.
    """
    if len(vectors) < 2:
        raise ValueError(f"disentanglement needs two or more codebooks, not {len(vectors)}")
    pairs = [F.cosine_similarity(one, other, dim=-1).square().mean() for one, other in combinations(vectors, 2)]
    return torch.stack(pairs).mean()
