"""TilingPlan: how images of any size are padded and cut to meet a tokenizer's size rules."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import pad

from tokbench.tokenizers.spec import TokenizerSpec


@dataclass(frozen=True)
class TilingPlan:
    """How images of one size meet the size rules: they are padded at the right and bottom edge, then cut into tiles.

    height, width: the image size. padded: (height, width) after padding. tile: (height, width) of a tile. All in
    pixels.
    """

    height: int
    width: int
    padded: tuple[int, int]
    tile: tuple[int, int]

    @property
    def tiles(self) -> int:
        """The number of tiles per image."""
        return (self.padded[0] // self.tile[0]) * (self.padded[1] // self.tile[1])

    def describe(self) -> str | None:
        """Return a note for the result about padding and tiles, or None if images are used unchanged."""
        notes = []
        if self.padded != (self.height, self.width):
            notes.append(f"padded from {self.width}x{self.height} to {self.padded[1]}x{self.padded[0]}")
        if self.tiles > 1:
            notes.append(f"cut into {self.tiles} tiles of {self.tile[1]}x{self.tile[0]}")
        return ", ".join(notes) or None

    def cut(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to tiles (B * tiles, 3, h, w). The tiles of an image are consecutive."""
        below, right = self.padded[0] - self.height, self.padded[1] - self.width
        if below or right:
            images = pad(images, (0, right, 0, below), mode="replicate")
        h, w = self.tile
        grid = images.unfold(2, h, h).unfold(3, w, w)  # (B, 3, rows, columns, h, w)
        return grid.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, h, w)

    def join(self, tiles: Tensor) -> Tensor:
        """Map tiles (B * tiles, 3, h, w) back to images (B, 3, H, W), without the padding. This is the inverse of
        `cut`."""
        h, w = self.tile
        rows, columns = self.padded[0] // h, self.padded[1] // w
        grid = tiles.reshape(-1, rows, columns, 3, h, w).permute(0, 3, 1, 4, 2, 5)
        return grid.reshape(-1, 3, *self.padded)[:, :, : self.height, : self.width].contiguous()


def fit(spec: TokenizerSpec, height: int, width: int) -> TilingPlan:
    """Return the plan with the smallest padding that makes height x width images meet the size rules of `spec`."""
    step = spec.size or spec.multiple
    padded = (-(-height // step) * step, -(-width // step) * step)
    return TilingPlan(height, width, padded, (spec.size, spec.size) if spec.size else padded)
