"""LDS: how much more similar the vectors of near tokens are than those of distant ones (arXiv:2512.10794)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.errors import NotApplicable
from tokbench.metrics.base import PerImageMetric
from tokbench.metrics.batch import Batch
from tokbench.metrics.latents import grid_vectors
from tokbench.tokenizers.base import ImageModel

FAR = 6 / 16
"""The smallest distance of distant tokens, as a share of the longer side of the grid: 6 on 16 x 16, as published."""


class Locality(PerImageMetric):
    """`lds`: mean cosine of the vectors of neighbouring tokens (left, right, above, below) minus that of distant ones,
    whose Manhattan distance is at least 6/16 of the longer side of the grid, and at least 2; the mean over images.

    Vectors are not centred, as in the authors' code. Vectors of length 0 have the cosine 0 to all others.
    """

    bounds: ClassVar[tuple[float, float]] = (-2.0, 2.0)

    def __init__(self, model: ImageModel) -> None:
        super().__init__()
        self._model = model

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        """Raises NotApplicable where tokens are not vectors on a grid of at least 2 x 2."""
        size = tuple(batch.require("image").shape[2:])
        vectors = grid_vectors(self._model, batch.require("tokens"), size)
        if min(vectors.shape[1:3]) < 2:
            raise NotApplicable("a row of tokens has no distant ones; a grid of at least 2x2 is needed")
        # One by one: a transform of several images may round otherwise than one of a single image.
        return {"lds": torch.cat([local_minus_distant(one) for one in vectors.split(1)]).numpy()}


def local_minus_distant(vectors: Tensor) -> Tensor:
    """Return the mean cosine of neighbours minus that of distant vectors, float64 (B,), of vectors (B, h, w, D).

    The sums of cosines over all pairs with one offset are an autocorrelation, computed by a Fourier transform.
    """
    rows, columns = vectors.shape[1:3]
    unit = F.normalize(vectors.double(), dim=-1)
    padded = (2 * rows, 2 * columns)
    power = torch.fft.rfft2(unit, padded, dim=(1, 2)).abs().square().sum(-1)
    sums = torch.fft.irfft2(power, padded, dim=(1, 2))  # (B, 2 rows, 2 columns); negative offsets come last
    down, across = (torch.fft.fftfreq(2 * side, 1 / (2 * side)).abs() for side in (rows, columns))
    distance = down[:, None] + across
    pairs = (rows - down).clamp(min=0)[:, None] * (columns - across).clamp(min=0)
    near, far = distance == 1, (distance >= max(2.0, FAR * max(rows, columns))) & (pairs > 0)
    means = [(sums * some).sum((1, 2)) / (pairs * some).sum() for some in (near, far)]
    return means[0] - means[1]
