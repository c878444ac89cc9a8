"""What one sample of a generator costs: passes of its network, operations, and the time of a single one."""

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
"""Samples drawn before those that are timed, and those."""
GAIN, LARGEST = 1.05, 512
"""A batch is large enough where one of twice its size is not so many times faster; and the largest that is tried."""


class Cost(Metric):
    """`network_evaluations`: passes of the whole network over all tokens (those without the class count, too).
    `gflops_per_image` and `decode_gflops_per_image`: 2 operations a multiplication, by PyTorch's counter, of drawing
    tokens and of decoding them. `sample_latency_ms` and `decode_latency_ms`: medians over 10 samples, one at a time.
    `saturated_samples_per_second` and `saturated_decodes_per_second`: at the batch size from which on larger ones gain
    nothing (or do not fit), which the provenance names.
    """

    def __init__(self, model: ImageModel, device: str, guidance: float | None = None) -> None:
        super().__init__()
        if not isinstance(model, Generator):
            raise NotApplicable("only a generator draws tokens")
        self._model, self._device = model, device
        self._guidance = model.guidance if guidance is None else guidance
        self._sizes: dict[str, str] = {}

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        return {"seen": np.ones(len(batch))}

    @torch.inference_mode()
    def compute(self) -> dict[str, float]:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            return self._measured()

    def _measured(self) -> dict[str, float]:
        model, guidance = self._model, self._guidance
        label = torch.zeros(1, dtype=torch.long, device=self._device)
        with FlopCounterMode(display=False) as drawing, sdpa_kernel(SDPBackend.MATH):  # the others are not counted
            tokens = model.sample(label, [0], guidance)
        with FlopCounterMode(display=False) as decoding, sdpa_kernel(SDPBackend.MATH):
            model.tokenizer.decode(tokens, [1])
        times = []
        for turn in range(WARM + TIMED):
            drawn, sampling = timing.timed(lambda turn=turn: model.sample(label, [turn], guidance), self._device)  # type: ignore[misc]
            _, after = timing.timed(lambda drawn=drawn: model.tokenizer.decode(drawn, [1]), self._device)  # type: ignore[misc]
            times.append((sampling, after))
        sampling, after = (1000 * statistics.median(one) for one in zip(*times[WARM:], strict=True))
        found = {
            "gflops_per_image": drawing.get_total_flops() / 1e9,
            "decode_gflops_per_image": decoding.get_total_flops() / 1e9,
            "sample_latency_ms": sampling,
            "decode_latency_ms": after,
        }
        seeds, labels = list(range(LARGEST)), torch.zeros(LARGEST, dtype=torch.long, device=self._device)
        many = Tokens.cat([tokens] * LARGEST)
        calls: dict[str, Callable[[int], object]] = {
            "samples": lambda batch: model.sample(labels[:batch], seeds[:batch], guidance),
            "decodes": lambda batch: model.tokenizer.decode(many.select(range(batch)), seeds[:batch]),
        }
        for what, call in calls.items():
            found[f"saturated_{what}_per_second"], size = saturated(call, self._device)
            self._sizes[f"{FOUND}{what}"] = str(size)
        evaluations = model.num_function_evaluations(guidance)
        return found if evaluations is None else {"network_evaluations": evaluations} | found

    def provenance(self) -> dict[str, str]:
        return {"device": timing.device_name(self._device)} | self._sizes


def saturated(call: Callable[[int], object], device: str) -> tuple[float, int]:
    """The most images a second that `call` makes of batches that double from 8 to `LARGEST`, and their size."""
    best, size, batch = 0.0, 1, 8
    while batch <= LARGEST:
        try:
            call(batch)  # the first of a size also pays for what is allocated once
            _, seconds = timing.timed(lambda batch=batch: call(batch), device)  # type: ignore[misc]
        except (torch.OutOfMemoryError, MemoryError):
            break
        rate = batch / max(seconds, 1e-9)
        grown = rate >= GAIN * best
        if rate > best:
            best, size = rate, batch
        if not grown:
            break
        batch *= 2
    return best, size
