"""The number of tokens and bits of an image."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from tokbench.errors import NotApplicable
from tokbench.metrics.base import PerImageMetric
from tokbench.metrics.batch import Batch
from tokbench.tokenizers.tokens import Tokens


class Rate(PerImageMetric):
    """`tokens_per_image` (except for codecs), `bits_per_image`, `bpp` (bits per pixel of the evaluated image) and
    `compression_ratio` (24 bits per pixel divided by the mean bpp).

    An index costs log2 of its codebook's size, a latent value 16 bits (it is stored as float16), a codec's file its
    bytes. No entropy coder is assumed.
    """

    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        tokens: Tokens = batch.require("tokens")
        height, width = batch.require("image").shape[2:]
        pixels = height * width
        bits = tokens.bits.numpy()
        values = {"bits_per_image": bits, "bpp": bits / pixels}
        if int(tokens.length.max()) > 0:
            values["tokens_per_image"] = tokens.length.numpy().astype(np.float64)
        return values

    def compute(self) -> dict[str, float]:
        numbers = super().compute()
        if not numbers["bpp"]:
            raise NotApplicable("the tokens have no bits")
        return numbers
