"""How fast and how large a tokenizer is, on the device of this run."""

from __future__ import annotations

from typing import Self

from tokbench import speed
from tokbench.batch import Batch, Timing
from tokbench.metrics.metric import Metric
from tokbench.tokenizer import Reconstructor


class Throughput(Metric):
    """`parameters`, `encode_images_per_second`, `decode_images_per_second` and `peak_memory_mib`.

    Speeds are images over seconds inside encode and decode at this run's batch size, the first batch left out as a
    warm-up where there are others. Peak memory is what encode and decode of a batch need beyond the weights.
    """

    def __init__(self, model: Reconstructor, device: str, batch_size: int) -> None:
        self._model, self._device, self._batch_size = model, device, batch_size
        self._batches: list[tuple[int, Timing]] = []

    def update(self, batch: Batch) -> None:
        self._batches.append((len(batch), batch.need("timing")))

    def merge(self, other: Self) -> None:
        self._batches += other._batches

    def compute(self) -> dict[str, float]:
        warm = self._batches[1:] or self._batches
        images = sum(count for count, _ in warm)
        numbers = {
            "parameters": float(speed.parameters(self._model.module)),
            "encode_images_per_second": images / max(sum(timing.encode for _, timing in warm), 1e-9),
            "decode_images_per_second": images / max(sum(timing.decode for _, timing in warm), 1e-9),
        }
        peaks = [timing.peak_mib for _, timing in self._batches if timing.peak_mib is not None]
        return numbers | ({"peak_memory_mib": peaks[-1]} if peaks else {})

    def provenance(self) -> dict[str, str]:
        return {"device": speed.describe(self._device), "batch_size": str(self._batch_size)}
