"""The number of tokens and bits of a clip."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from tokbench.errors import NotApplicable
from tokbench.metrics.base import PerImageMetric
from tokbench.metrics.batch import Batch
from tokbench.tokenizers.tokens import Tokens


class ClipRate(PerImageMetric):
    """`tokens_per_clip` and `clip_tokens_per_second` (except for codecs), `bits_per_clip`, `clip_kbps` (1,000 bits a
    second) and `clip_bpp` (bits per pixel of all frames).

    A clip of T frames at f frames a second lasts T / f seconds. Bits are counted as for images.
    """

    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        tokens: Tokens = batch.require("tokens")
        frames, _, height, width = batch.require("image").shape[1:]
        seconds = frames / batch.require_extra("rates").numpy()
        bits = tokens.bits.numpy()
        if not bits.any():
            raise NotApplicable("the tokens have no bits")
        values = {
            "bits_per_clip": bits,
            "clip_kbps": bits / seconds / 1000,
            "clip_bpp": bits / (frames * height * width),
        }
        if int(tokens.length.max()) > 0:
            count = tokens.length.numpy().astype(np.float64)
            values |= {"tokens_per_clip": count, "clip_tokens_per_second": count / seconds}
        return values
