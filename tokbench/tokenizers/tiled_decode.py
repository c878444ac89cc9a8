"""TiledDecoder: decodes an image in tiles with a linear blend in their overlaps, as pipelines do to save memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tokbench.errors import NotApplicable
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens


@dataclass(frozen=True)
class Seams:
    """Where the tiles of a decoded image begin and end: the positions of the first pixel after each line.

    rows: lines between two rows of pixels. columns: lines between two columns.
    """

    rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rows or self.columns)


class TiledDecoder:
    """Decodes tiles of the grid of tokens separately.

    Tiles begin every tile - overlap pixels; those at the right and lower edge end with the image. In an overlap the
    weight of a tile rises linearly from its edge, and weights are normalised to a sum of 1. Of N pixels, the first has
    the weight 0.5 / N; in diffusers' autoencoders, whose blend is linear, too, it has the weight 0.
    """

    def __init__(
        self, spec: TokenizerSpec, decode: Callable[[Tokens, Sequence[int]], Tensor], tile: int, overlap: int
    ) -> None:
        """tile, overlap: in pixels. Raises NotApplicable if the decoder cannot decode a part of the grid of tokens, or
        if tiles of this size do not consist of whole tokens."""
        if spec.size is not None:
            raise NotApplicable(f"{spec.name}: its decoder takes only images of {spec.size} px, so not smaller tiles")
        if spec.downsample is None or spec.num_tokens is not None:
            raise NotApplicable(f"{spec.name}: its tokens are not a grid that could be cut into tiles")
        for what, value in (("tiles", tile), ("an overlap", overlap)):
            if value % spec.multiple or value % spec.downsample:
                unit = math.lcm(spec.multiple, spec.downsample)
                raise NotApplicable(f"{spec.name}: {what} of {value} px is not a multiple of {unit} px")
        self._name, self._decode, self._scale = spec.name, decode, spec.downsample
        self._tile, self._overlap = tile, overlap

    def starts(self, length: int) -> list[int]:
        """Return where tiles begin along an axis of `length` pixels."""
        return list(range(0, max(length - self._overlap, 1), self._tile - self._overlap))

    def seams(self, size: tuple[int, int]) -> Seams:
        """Return where tiles begin and end inside an image of that (height, width)."""
        lines = []
        for length in size:
            edges = {edge for start in self.starts(length) for edge in (start, start + self._tile)}
            lines.append(tuple(sorted(edge for edge in edges if 0 < edge < length)))
        return Seams(*lines)

    def decode(self, tokens: Tokens, seeds: Sequence[int], size: tuple[int, int]) -> Tensor:
        """Return images (B, 3, H, W) of that (height, width), decoded tile by tile."""
        height, width = size
        grid = height // self._scale, width // self._scale
        total = weights = None
        for top in self.starts(height):
            bottom = min(top + self._tile, height)
            for left in self.starts(width):
                right = min(left + self._tile, width)
                rows, columns = (slice(a // self._scale, b // self._scale) for a, b in ((top, bottom), (left, right)))
                part = self._decode(tokens.crop(grid, rows, columns, self._name), seeds).float()
                if total is None or weights is None:
                    total, weights = part.new_zeros(len(part), 3, *size), part.new_zeros(size)
                down, across = self._ramp(top, bottom, height), self._ramp(left, right, width)
                weight = (down[:, None] * across[None, :]).to(part)
                total[:, :, top:bottom, left:right] += weight * part
                weights[top:bottom, left:right] += weight
        assert total is not None
        assert weights is not None
        return total / weights

    def _ramp(self, start: int, end: int, length: int) -> Tensor:
        """Return the weights of the pixels from `start` to `end` along an axis, which rise from the edges that another
        tile overlaps."""
        weights = torch.ones(end - start)
        if self._overlap:
            rise = (torch.arange(self._overlap) + 0.5) / self._overlap
            count = min(self._overlap, end - start)
            if start > 0:
                weights[:count] *= rise[:count]
            if end < length:
                weights[-count:] *= rise[:count].flip(0)
        return weights
