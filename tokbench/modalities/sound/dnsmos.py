"""Predicted listening scores of speech, by DNSMOS (Reddy et al. 2022, arXiv:2110.01763)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.metadata import version
from math import gcd
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from tokbench.errors import MissingWeights
from tokbench.io.hashing import sha256_of
from tokbench.metrics.base import PerImageMetric
from tokbench.metrics.batch import Batch

RATE = 16000
"""The sampling rate of the networks."""

FILES = ("sig_bak_ovr.onnx", "model_v8.onnx")
"""The networks in the wheel of speechmos: of the three scores of P.835, and of P.808."""

NUMBERS = {
    "dnsmos": "ovrl_mos", "dnsmos_signal": "sig_mos", "dnsmos_background": "bak_mos", "dnsmos_p808": "p808_mos",
}  # fmt: skip
"""The numbers of the metric, and their names in the package."""

_MEMO = "dnsmos", 0


class Dnsmos(PerImageMetric):
    """`dnsmos`, `dnsmos_signal`, `dnsmos_background` (scales of P.835) and `dnsmos_p808`: mean scores, 1 to 5, that the
    networks in the package speechmos predict for the output; `dnsmos_original`: `dnsmos` of the originals.

    The networks were fitted to noisy speech of wideband calls. They get the first channel, resampled to 16 kHz by SciPy
    where the recording has another rate; nothing lies above half of the recording's own rate, and scores are lower for
    it. speechmos repeats recordings of less than 9.01 s. Raises MissingWeights where the packages are not installed.
    """

    bounds: ClassVar[tuple[float, float]] = (1.0, 5.0)

    def __init__(self) -> None:
        super().__init__()
        self._score = _library()

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        memo = batch.reference_memo
        if _MEMO not in memo.features:  # they are the same for all adapters
            memo.features[_MEMO] = self._scores(batch, "reference")
        found = {name: values.numpy() for name, values in self._scores(batch, "image").items()}
        return found | {"dnsmos_original": memo.features[_MEMO]["dnsmos"].numpy()}

    def _scores(self, batch: Batch, side: Literal["image", "reference"]) -> dict[str, Tensor]:
        """Return the scores of one side's recordings, float64 (B,), by number."""
        waves = 2 * batch.require(side)[:, 0] - 1
        lengths, rates = (batch.require_extra(name).tolist() for name in ("lengths", "rates"))
        found = [self._scored(wave[:length], rate) for wave, length, rate in zip(waves, lengths, rates, strict=True)]
        return {
            number: torch.tensor([float(one[key]) for one in found], dtype=torch.float64)
            for number, key in NUMBERS.items()
        }

    def _scored(self, wave: Tensor, rate: float) -> dict[str, Any]:
        samples = wave.double().numpy()
        if rate != RATE:
            from scipy.signal import resample_poly

            common = gcd(RATE, round(rate))
            samples = resample_poly(samples, RATE // common, round(rate) // common)
        return self._score(samples.clip(-1, 1), RATE)

    def provenance(self) -> dict[str, str]:
        folder = Path(importlib.import_module("speechmos").__file__ or "").parent / "dnsmos_models"
        hashes = {file: sha256_of(folder / file) for file in FILES}
        return {"library": f"speechmos {version('speechmos')}", "rate": str(RATE)} | hashes


def _library() -> Callable[[np.ndarray, int], dict[str, Any]]:
    """Return the function of speechmos that scores samples (N,) in [-1, 1] at a rate."""
    try:
        return importlib.import_module("speechmos.dnsmos").run
    except ImportError as error:
        raise MissingWeights(
            f"dnsmos needs the packages speechmos, librosa and onnxruntime ({error}); pip install 'tokbench[speech]'",
            public_reason="dnsmos needs the packages speechmos, librosa and onnxruntime, which were not installed",
        ) from error
