"""Quantization of a sequence in segments: consecutive positions that have a codebook of their own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Unpack, cast

import torch
from torch import Tensor, nn

from tokbench.nn.quantizers.quantizer import Quantized, Quantizer, usage
from tokbench.nn.quantizers.vq import VectorQuantizer, VQOptions


class Segmented(Quantizer):
    """Quantizes the positions of each of `lengths` segments with the quantizer of the same place in `parts`; G = 1.

    The index of a code has a different meaning in each segment. N must be the sum of `lengths`. The loss is the mean
    over positions. Raises ValueError if the quantizers differ in D or K, or have several groups.
    """

    groups = 1
    whitened = False

    def __init__(self, lengths: Sequence[int], parts: Sequence[Quantizer]) -> None:
        super().__init__()
        shapes = {(part.dim, part.codebook_size, part.groups) for part in parts}
        if len(shapes) != 1 or len(lengths) != len(parts) or parts[0].groups != 1:
            raise ValueError(f"{len(lengths)} segments need as many quantizers with the same D and K and one group")
        self.lengths, self.dim, self.codebook_size = list(lengths), parts[0].dim, parts[0].codebook_size
        self.parts = cast("Sequence[Quantizer]", nn.ModuleList(parts))  # typed as a list of any modules

    def segments(self, values: Tensor) -> Sequence[tuple[Quantizer, Tensor]]:
        """Cut (B, N, ...) into the segments. Raises ValueError for another N."""
        if values.shape[1] != sum(self.lengths):
            raise ValueError(f"segments of {self.lengths} positions are not {values.shape[1]} positions")
        return list(zip(self.parts, values.split(self.lengths, dim=1), strict=True))

    def forward(self, latents: Tensor) -> Quantized:
        outputs = [part(piece) for part, piece in self.segments(latents)]
        shares = [length / sum(self.lengths) for length in self.lengths]
        loss = torch.stack([share * one.loss for share, one in zip(shares, outputs, strict=True)]).sum()
        indices = torch.cat([one.indices for one in outputs], dim=1)
        vectors = torch.cat([one.vectors for one in outputs], dim=1)
        return Quantized(vectors, indices, loss, usage(indices, self.codebook_size))

    def unquantized(self, latents: Tensor) -> Tensor:
        return torch.cat([part.unquantized(piece) for part, piece in self.segments(latents)], dim=1)

    def lookup(self, indices: Tensor) -> Tensor:
        """Map the indices of the first k positions, int64 (B, k, 1), to vectors (B, k, D)."""
        ends = itertools.accumulate(self.lengths)
        pieces = indices.tensor_split([*ends][:-1], dim=1)
        return torch.cat([part.lookup(piece) for part, piece in zip(self.parts, pieces, strict=True)], dim=1)

    def table(self) -> Tensor:
        """Return the entries of all segments (number of segments, K, D); `segments` says which positions use which."""
        return torch.cat([part.table() for part in self.parts])

    def anchors(self, latents: Tensor) -> Tensor:
        return torch.cat([part.anchors(piece) for part, piece in self.segments(latents)], dim=1)


class SegmentVQ(Segmented):
    """Quantizes the positions of each of `lengths` segments with their own `VectorQuantizer`; G = 1.

    It is used by Hita (arXiv:2507.02358), with a segment of holistic and one of local tokens. options: as for
    `VectorQuantizer`, the same for all segments.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        codebook_size: int,
        dim: int,
        *,
        normalised: bool = True,
        **options: Unpack[VQOptions],
    ) -> None:
        super().__init__(
            lengths, [VectorQuantizer(codebook_size, dim, normalised=normalised, **options) for _ in lengths]
        )
