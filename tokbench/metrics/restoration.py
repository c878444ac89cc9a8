"""How far a tokenizer's output is nearer to the clean image than its degraded input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tokbench.metrics.base import PerImageMetric
from tokbench.metrics.batch import Batch, DerivedCache
from tokbench.metrics.psnr import PSNR
from tokbench.protocol.protocol import TOKBENCH, Protocol


class Restoration(PerImageMetric):
    """`input_psnr`: the PSNR in dB of the degraded input against the clean image, and `psnr_gain`: the PSNR of the
    output minus that of the input. Both are means over images, whatever the protocol's average.

    An image whose input or output is exact has no finite difference and is left out.
    """

    def __init__(self, protocol: Protocol = TOKBENCH) -> None:
        super().__init__()
        self._psnr = PSNR(protocol.with_changes(protocol.name, psnr__average="image", psnr__batch_size=1))

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        given = replace(batch, image=batch.require("degraded"), image_memo=DerivedCache())
        before, after = (self._psnr.per_sample(one)["psnr"] for one in (given, batch))
        return {"input_psnr": before, "psnr_gain": after - before}
