"""Predicted listening scores of speech, by DNSMOS (Reddy et al. 2022, arXiv:2110.01763)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.metadata import version
from math import gcd
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from tokbench.errors import MissingWeights
from tokbench.io.hashing import sha256_of
from tokbench.metrics.base import PerImageMetric
from tokbench.metrics.batch import Batch

RATE = 16000
"""The sampling rate of the networks."""

FILES = ("sig_bak_ovr.onnx", "model_v8.onnx")
"""The networks in the wheel of speechmos: of the three scores of P.835, and of P.808."""


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
        image, reference = (2 * batch.require(side)[:, 0] - 1 for side in ("image", "reference"))
        lengths, rates = (batch.require_extra(name).tolist() for name in ("lengths", "rates"))
        scores = [self._scores(wave[:length], rate) for wave, length, rate in zip(image, lengths, rates, strict=True)]
        originals = [
            self._scores(wave[:length], rate)["ovrl_mos"]
            for wave, length, rate in zip(reference, lengths, rates, strict=True)
        ]
        names = {"": "ovrl_mos", "_signal": "sig_mos", "_background": "bak_mos", "_p808": "p808_mos"}
        found = {f"dnsmos{part}": np.array([float(own[key]) for own in scores]) for part, key in names.items()}
        return found | {"dnsmos_original": np.array(originals, dtype=np.float64)}

    def _scores(self, wave: Tensor, rate: float) -> dict[str, Any]:
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
