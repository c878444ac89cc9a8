"""What one sample of a generator costs: passes of its network, operations, and the time of a single one."""

from __future__ import annotations

import statistics

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tokbench import speed
from tokbench.batch import Batch
from tokbench.errors import NotApplicable
from tokbench.metrics.metric import Metric
from tokbench.tokenizer import Generator, Reconstructor

WARM, TIMED = 2, 10
"""Samples drawn before those that are timed, and those."""


class Cost(Metric):
    """`network_evaluations`: passes of the whole network over all tokens (those without the class count, too).
    `gflops_per_image` and `decode_gflops_per_image`: 2 operations a multiplication, by PyTorch's counter, of drawing
    tokens and of decoding them. `sample_latency_ms` and `decode_latency_ms`: medians over 10 samples, one at a time.
    """

    def __init__(self, model: Reconstructor, device: str, guidance: float | None = None) -> None:
        super().__init__()
        if not isinstance(model, Generator):
            raise NotApplicable("only a generator draws tokens")
        self._model, self._device = model, device
        self._guidance = model.guidance if guidance is None else guidance

    def measure(self, batch: Batch) -> dict[str, np.ndarray]:
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
            model.tokenizer.decode(tokens, [0])
        times = []
        for turn in range(WARM + TIMED):
            drawn, sampling = speed.timed(lambda turn=turn: model.sample(label, [turn], guidance), self._device)  # type: ignore[misc]
            _, after = speed.timed(lambda drawn=drawn: model.tokenizer.decode(drawn, [0]), self._device)  # type: ignore[misc]
            times.append((sampling, after))
        sampling, after = (1000 * statistics.median(one) for one in zip(*times[WARM:], strict=True))
        found = {
            "gflops_per_image": drawing.get_total_flops() / 1e9,
            "decode_gflops_per_image": decoding.get_total_flops() / 1e9,
            "sample_latency_ms": sampling,
            "decode_latency_ms": after,
        }
        evaluations = model.evaluations(guidance)
        return found if evaluations is None else {"network_evaluations": evaluations} | found

    def provenance(self) -> dict[str, str]:
        return {"device": speed.describe(self._device)}
