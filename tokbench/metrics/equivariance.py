"""How far a decoder commutes with rotations, flips, shifts and scalings of its latents (EQ-VAE, arXiv:2502.09509)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from tokbench.metrics.base import PerImageMetric
from tokbench.metrics.batch import Batch
from tokbench.metrics.latents import Size, decode_tokens, grid_of, with_layout
from tokbench.tokenizers.base import ImageModel
from tokbench.tokenizers.tiling import fit
from tokbench.tokenizers.tokens import Tokens

LEVELS = 255


class _Pair(NamedTuple):
    """Transformed tokens, the transformed original and reconstruction, and the part of the image that is compared."""

    name: str
    tokens: Tokens
    original: Tensor
    own: Tensor
    part: tuple[slice, slice] = (slice(None), slice(None))


class Equivariance(PerImageMetric):
    """Root mean square difference, in levels (0 to 255), between the image decoded from transformed tokens and the
    transformed image; the mean over images.

    `equivariance_rotate`: turned by 90 degrees. `equivariance_flip`: mirrored. `equivariance_shift`: moved by one token
    down and to the right, compared in the middle half of the image, far from the wrapped border. `equivariance_scale`:
    latents and image averaged over 2 x 2, so that the image has half the side; only for continuous tokens of tokenizers
    that decode that size. The image is the original, as in EQ-VAE, and the number then contains the error of the
    reconstruction; with the suffix `_own` it is the reconstruction, and 0 means that the decoder is equivariant.
    Decoders that sample draw other noise for the transformed tokens.
    """

    bounds: ClassVar[tuple[float, float]] = (0.0, float(LEVELS))

    def __init__(self, model: ImageModel, batch_size: int) -> None:
        super().__init__()
        self._model, self._batch_size = model, batch_size

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        """Raises NotApplicable where tokens are not on a grid."""
        columns: dict[str, np.ndarray] = {}
        for name, tokens, original, own, part in self._pairs(batch):
            size = original.shape[2], original.shape[3]
            decoded = decode_tokens(self._model, tokens, batch, self._batch_size, size)[..., part[0], part[1]]
            for suffix, target in (("", original), ("_own", own)):
                squares = (decoded - target[..., part[0], part[1]]).double().square().mean((1, 2, 3))
                columns[f"equivariance_{name}{suffix}"] = squares.sqrt().numpy() * LEVELS
        return columns

    def _pairs(self, batch: Batch) -> Iterator[_Pair]:
        reference: Tensor = batch.require("reference")
        image: Tensor = batch.require("image")
        height, width = reference.shape[2:]
        grid, name = grid_of(self._model, (height, width)), self._model.spec.name
        tokens = with_layout(self._model, batch.require("tokens"))

        def rotate(maps: Tensor) -> Tensor:
            return maps.rot90(1, (-2, -1))

        if self._decodes((width, height)):
            yield _Pair("rotate", tokens.map_grid(grid, rotate, name), rotate(reference), rotate(image))
        flipped = tokens.map_grid(grid, lambda maps: maps.flip(-1), name)
        yield _Pair("flip", flipped, reference.flip(-1), image.flip(-1))
        step = height // grid[0]
        moved = tokens.map_grid(grid, lambda maps: maps.roll((1, 1), (-2, -1)), name)
        middle = slice(height // 4, height - height // 4), slice(width // 4, width - width // 4)
        yield _Pair("shift", moved, reference.roll((step, step), (-2, -1)), image.roll((step, step), (-2, -1)), middle)
        continuous = all(stream.kind == "latent" for stream in tokens.streams.values())
        if continuous and not any(side % 2 for side in grid) and self._decodes((height // 2, width // 2)):
            small = tokens.map_grid(grid, _halve, name)
            yield _Pair("scale", small, _halve(reference), _halve(image))

    def _decodes(self, size: Size) -> bool:
        """Return whether images of that (height, width) are neither padded nor cut into tiles."""
        plan = fit(self._model.spec, *size)
        return plan.padded == size and plan.tiles == 1


def _halve(maps: Tensor) -> Tensor:
    """Return the means (..., h/2, w/2) over 2 x 2 values of maps (..., h, w)."""
    return F.avg_pool2d(maps.float().flatten(0, -3)[:, None], 2)[:, 0].unflatten(0, maps.shape[:-2]).to(maps)
