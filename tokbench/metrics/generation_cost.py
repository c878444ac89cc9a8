"""The cost of one sample of a generator: passes of its network, operations, latency and throughput."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tokbench import timing
from tokbench.errors import NotApplicable
from tokbench.metric_names import FOUND
from tokbench.metrics.base import Metric
from tokbench.metrics.batch import Batch
from tokbench.tokenizers.base import Generator, ImageModel
from tokbench.tokenizers.tokens import Tokens

WARM, TIMED = 2, 10
"""The number of warm-up samples and of timed samples."""
GAIN, LARGEST = 1.05, 512
"""The smallest speed-up for which the batch size is doubled again, and the largest batch size."""


class Cost(Metric):
    """`network_evaluations`: passes of the whole network over all tokens, including those without the class.
    `gflops_per_image` and `decode_gflops_per_image`: operations (2 per multiplication, by PyTorch's counter) for
    drawing tokens and for decoding them. `sample_latency_ms` and `decode_latency_ms`: medians over 10 samples with
    batch size 1. `saturated_samples_per_second` and `saturated_decodes_per_second`: images per second at the batch size
    beyond which a larger batch is not faster or does not fit into memory; the provenance records that size."""

    def __init__(self, model: ImageModel, device: str, guidance: float | None = None) -> None:
        super().__init__()
        if not isinstance(model, Generator):
            raise NotApplicable("only a generator can draw tokens")
        self._model, self._device = model, device
        self._guidance = model.guidance if guidance is None else guidance
        self._sizes: dict[str, str] = {}

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        return {"seen": np.ones(len(batch))}

    @torch.inference_mode()
    def compute(self) -> dict[str, float]:
        with timing.exact_kernels():
            return self._measured()

    def _measured(self) -> dict[str, float]:
        model, guidance = self._model, self._guidance
        label = torch.zeros(1, dtype=torch.long, device=self._device)
        with (
            FlopCounterMode(display=False) as drawing,
            sdpa_kernel(SDPBackend.MATH),
        ):  # the counter does not support other kernels
            tokens = model.sample(label, [0], guidance)
        with FlopCounterMode(display=False) as decoding, sdpa_kernel(SDPBackend.MATH):
            model.tokenizer.decode(tokens, [1])
        times = []
        for seed in range(WARM + TIMED):
            drawn, sampling = timing.timed(lambda seed=seed: model.sample(label, [seed], guidance), self._device)  # type: ignore[misc]
            _, decode_time = timing.timed(lambda drawn=drawn: model.tokenizer.decode(drawn, [1]), self._device)  # type: ignore[misc]
            times.append((sampling, decode_time))
        sampling, decode_time = (1000 * statistics.median(column) for column in zip(*times[WARM:], strict=True))
        numbers = {
            "gflops_per_image": drawing.get_total_flops() / 1e9,
            "decode_gflops_per_image": decoding.get_total_flops() / 1e9,
            "sample_latency_ms": sampling,
            "decode_latency_ms": decode_time,
        }
        seeds, labels = list(range(LARGEST)), torch.zeros(LARGEST, dtype=torch.long, device=self._device)
        many = Tokens.cat([tokens] * LARGEST)
        calls: dict[str, Callable[[int], object]] = {
            "samples": lambda batch: model.sample(labels[:batch], seeds[:batch], guidance),
            "decodes": lambda batch: model.tokenizer.decode(many.select(range(batch)), seeds[:batch]),
        }
        for stage, call in calls.items():
            numbers[f"saturated_{stage}_per_second"], size = saturated(call, self._device)
            self._sizes[f"{FOUND}{stage}"] = str(size)
        evaluations = model.num_function_evaluations(guidance)
        return numbers if evaluations is None else {"network_evaluations": evaluations} | numbers

    def provenance(self) -> dict[str, str]:
        return {"device": timing.device_name(self._device)} | self._sizes


def saturated(call: Callable[[int], object], device: str) -> tuple[float, int]:
    """Return the largest number of images per second with batches that double from 8 to `LARGEST`, and that
    batch size."""
    best, size, batch = 0.0, 1, 8
    while batch <= LARGEST:
        try:
            call(batch)  # the first call with a new size includes one-time allocations
            _, seconds = timing.timed(lambda batch=batch: call(batch), device)  # type: ignore[misc]
        except (torch.OutOfMemoryError, MemoryError):
            break
        rate = batch / max(seconds, 1e-9)
        faster = rate >= GAIN * best
        if rate > best:
            best, size = rate, batch
        if not faster:
            break
        batch *= 2
    return best, size
