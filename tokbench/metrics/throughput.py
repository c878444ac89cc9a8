"""Speed, memory and size of a tokenizer on the device of this run."""

from __future__ import annotations

import math

import numpy as np

from tokbench import timing as timing_module
from tokbench.metrics.base import Metric
from tokbench.metrics.batch import Batch, Timing
from tokbench.tokenizers.base import ImageModel


class Throughput(Metric):
    """`parameters`, `encode_images_per_second` (for a generator `sample_images_per_second`), `decode_images_per_second`
    and `peak_memory_mib`.

    A speed is the number of images divided by the seconds inside encode (or in drawing tokens) or decode, at this run's
    batch size. The first batch is left out as a warm-up where there are others. Peak memory is what both need for a
    batch in addition to the weights.
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
        selected = warm if warm.any() else ~warm
        stage = "sample" if self.rows.column("sampled").any() else "encode"
        numbers = {
            "parameters": float(timing_module.parameters(self._model.module)),
            f"{stage}_images_per_second": selected.sum() / max(self.rows.column("encode")[selected].sum(), 1e-9),
            "decode_images_per_second": selected.sum() / max(self.rows.column("decode")[selected].sum(), 1e-9),
        }
        # The first batch of a process includes one-time allocations.
        peaks = self.rows.column("peak")
        measured = (
            peaks[~np.isnan(peaks) & selected] if (~np.isnan(peaks) & selected).any() else peaks[~np.isnan(peaks)]
        )
        return numbers | ({"peak_memory_mib": float(measured[-1])} if len(measured) else {})

    def provenance(self) -> dict[str, str]:
        sizes = np.unique(self.rows.column("batch_size")) if len(self.rows) else [self._batch_size]
        return {
            "device": timing_module.device_name(self._device),
            "batch_size": " and ".join(str(int(size)) for size in sizes),
        }
