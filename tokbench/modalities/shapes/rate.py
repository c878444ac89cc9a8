"""The number of tokens and bytes of a shape."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from tokbench.errors import NotApplicable
from tokbench.metrics.base import PerImageMetric
from tokbench.metrics.batch import Batch
from tokbench.tokenizers.tokens import Tokens


class ShapeRate(PerImageMetric):
    """`tokens_per_shape` (except for codecs) and `bytes_per_shape`, an eighth of the bits."""

    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        tokens: Tokens = batch.require("tokens")
        bits = tokens.bits.numpy()
        if not bits.any():
            raise NotApplicable("the tokens have no bits")
        values = {"bytes_per_shape": bits / 8}
        if int(tokens.length.max()) > 0:
            values["tokens_per_shape"] = tokens.length.numpy().astype(np.float64)
        return values
