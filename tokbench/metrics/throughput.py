"""How fast and how large a tokenizer is, on the device of this run."""

from __future__ import annotations

import math

import numpy as np

from tokbench import timing as speed
from tokbench.metrics.base import Metric
from tokbench.metrics.batch import Batch, Timing
from tokbench.tokenizers.base import ImageModel


class Throughput(Metric):
    """`parameters`, `encode_images_per_second` (of a generator `sample_images_per_second`), `decode_images_per_second`
    and `peak_memory_mib`.

    Speeds are images over seconds inside encode (or in drawing tokens) and decode at this run's batch size, the first
    batch left out as a warm-up where there are others. Peak memory is what both need of a batch beyond the weights.
    """

    def __init__(self, model: ImageModel, device: str, batch_size: int) -> None:
        super().__init__()
        self._model, self._device, self._batch_size, self._warm = model, device, batch_size, False

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        timing: Timing = batch.require("timing")
        count = len(batch)
        columns = {
            "encode": np.full(count, timing.encode / count),
            "decode": np.full(count, timing.decode / count),
            "peak": np.full(count, math.nan if timing.peak_mib is None else timing.peak_mib),
            "batch_size": np.full(count, timing.batch_size or self._batch_size),
            "warm": np.full(count, self._warm),
            "sampled": np.full(count, timing.sampled),
        }
        self._warm = True
        return columns

    def compute(self) -> dict[str, float]:
        warm = self.rows.column("warm")
        chosen = warm if warm.any() else ~warm
        first = "sample" if self.rows.column("sampled").any() else "encode"
        numbers = {
            "parameters": float(speed.parameters(self._model.module)),
            f"{first}_images_per_second": chosen.sum() / max(self.rows.column("encode")[chosen].sum(), 1e-9),
            "decode_images_per_second": chosen.sum() / max(self.rows.column("decode")[chosen].sum(), 1e-9),
        }
        # The first batch of a process also pays for what is allocated once.
        peaks = self.rows.column("peak")
        measured = peaks[~np.isnan(peaks) & chosen] if (~np.isnan(peaks) & chosen).any() else peaks[~np.isnan(peaks)]
        return numbers | ({"peak_memory_mib": float(measured[-1])} if len(measured) else {})

    def provenance(self) -> dict[str, str]:
        sizes = np.unique(self.rows.column("batch_size")) if len(self.rows) else [self._batch_size]
        return {"device": speed.device_name(self._device), "batch_size": " and ".join(str(int(size)) for size in sizes)}
