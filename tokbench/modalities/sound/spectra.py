"""Distances between waveforms: SI-SDR, log-mel and multi-resolution STFT."""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from tokbench.metrics.base import PerImageMetric
from tokbench.metrics.batch import Batch

RESOLUTIONS = ((512, 50, 240), (1024, 120, 600), (2048, 240, 1200))
"""FFT size, hop and window in samples of Parallel WaveGAN (arXiv:1910.11480), for 24 kHz. They are scaled to the
sampling rate, so that a window has the same duration at every rate."""

_RATE = 24000

MELS, MEL_WINDOW, MEL_HOP = 80, 0.025, 0.01
"""Bands of the mel spectrogram, and its window and hop in seconds."""

FLOOR = 1e-5
"""The smallest magnitude of a spectrum; the logarithm of smaller ones would measure rounding."""


class _WaveMetric(PerImageMetric):
    """The mean over recordings of a number of one waveform and its original, both without the padding."""

    name: ClassVar[str]
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        image, reference = (2 * batch.require(side).double() - 1 for side in ("image", "reference"))
        lengths, rates = (batch.require_extra(name).tolist() for name in ("lengths", "rates"))
        pairs = zip(image, reference, lengths, rates, strict=True)
        values = [self.of_pair(ours[:, :length], theirs[:, :length], rate) for ours, theirs, length, rate in pairs]
        return {self.name: np.array(values)}

    @abstractmethod
    def of_pair(self, image: Tensor, reference: Tensor, rate: float) -> float:
        """Return the number of a waveform and its original, float64 (C, N) in [-1, 1]; NaN if it is undefined."""


class SiSdr(_WaveMetric):
    """`si_sdr`: the scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019, arXiv:1811.02508).

    The original is scaled to the nearest multiple of itself, and the rest of the output is the distortion. Means are
    subtracted first. Silent originals and exact outputs have no value and are left out.
    """

    name = "si_sdr"
    bounds: ClassVar[tuple[float, float]] = (-math.inf, math.inf)

    def of_pair(self, image: Tensor, reference: Tensor, rate: float) -> float:
        image, reference = (wave - wave.mean() for wave in (image, reference))
        energy = float((reference * reference).sum())
        if energy == 0:
            return math.nan
        target = (image * reference).sum() / energy * reference
        signal, rest = float((target * target).sum()), float(((image - target) ** 2).sum())
        if rest <= 1e-18 * energy or signal == 0:
            return math.nan
        return 10 * math.log10(signal / rest)


class LogMel(_WaveMetric):
    """`log_mel`: the mean absolute difference of the natural logarithms of mel magnitudes, 80 bands (HTK scale, area
    normalised) up to half the sampling rate, Hann windows of 25 ms every 10 ms."""

    name = "log_mel"

    def of_pair(self, image: Tensor, reference: Tensor, rate: float) -> float:
        window, hop = round(MEL_WINDOW * rate), max(1, round(MEL_HOP * rate))
        size = 1 << max(window - 1, 1).bit_length()
        bank = torch.from_numpy(mel_bank(size, rate))
        ours, theirs = (
            torch.log((bank @ magnitudes(wave, size, hop, window)).clamp(min=FLOOR)) for wave in (image, reference)
        )
        return float((ours - theirs).abs().mean())

    def provenance(self) -> dict[str, str]:
        return {"bands": str(MELS), "window_ms": f"{1000 * MEL_WINDOW:g}", "hop_ms": f"{1000 * MEL_HOP:g}"}


class MultiResolutionStft(_WaveMetric):
    """`mr_stft`: the mean over three resolutions of spectral convergence plus the mean difference of log magnitudes
    (Parallel WaveGAN, arXiv:1910.11480)."""

    name = "mr_stft"

    def of_pair(self, image: Tensor, reference: Tensor, rate: float) -> float:
        found = []
        for given in RESOLUTIONS:
            size, hop, window = (max(4, round(count * rate / _RATE)) for count in given)
            ours, theirs = (magnitudes(wave, size, hop, window).clamp(min=FLOOR) for wave in (image, reference))
            convergence = torch.linalg.norm(theirs - ours) / torch.linalg.norm(theirs)
            found.append(float(convergence + (ours.log() - theirs.log()).abs().mean()))
        return sum(found) / len(found)


def magnitudes(wave: Tensor, size: int, hop: int, window: int) -> Tensor:
    """Return the magnitudes (C, size // 2 + 1, frames) of a waveform (C, N), with Hann windows that are centred on
    multiples of `hop`; the waveform is continued by zeros."""
    shape = torch.hann_window(window, dtype=wave.dtype)
    return torch.stft(wave, size, hop, window, shape, center=True, pad_mode="constant", return_complex=True).abs()


@cache
def mel_bank(size: int, rate: float) -> np.ndarray:
    """Return triangular filters (MELS, size // 2 + 1), float64, whose centres are evenly spaced on the HTK mel scale
    from 0 to half the rate; each has an area of one over Hz."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, MELS + 2) / 2595) - 1)
    bins = np.arange(size // 2 + 1) * rate / size
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.minimum(rise, fall).clip(0)
    return np.asarray(triangles * 2 / (edges[2:] - edges[:-2])[:, None])
