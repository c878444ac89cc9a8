"""Waveforms: how they are passed to tokenizers."""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tokbench.data.stream import ImageStream
from tokbench.metrics.base import Metric
from tokbench.modalities.base import Modality, PaddedPlan, round_up
from tokbench.modalities.checks import ItemChecks
from tokbench.tokenizers.spec import TokenizerSpec

SILENCE = 0.5
"""The stored value of a sample of 0."""


class Waveforms(Modality):
    """Waveforms, padded with silence to the multiple of samples that a tokenizer requires."""

    name = "sound"
    ranked_by = ("si_sdr", "log_mel", "mr_stft")

    def plan(self, spec: TokenizerSpec, shape: Sequence[int]) -> PaddedPlan:
        channels, samples = shape
        return PaddedPlan((channels, samples), (channels, round_up(samples, spec.multiple)), SILENCE)

    def describe_data(self, stream: ImageStream) -> dict[str, Any]:
        channels, samples = stream.shape or (0, 0)
        facts = {"width": samples, "height": channels, "modality": self.name, "side": stream.side}
        return facts | {"extent": f"{stream.side}hz-{samples}" + (f"-c{channels}" if channels > 1 else "")}

    def output_checks(self, spec: TokenizerSpec, paired: bool, degraded: bool) -> Metric:
        return ItemChecks(spec, self.noun)

    def picture(self, items: Tensor) -> Tensor:
        """Return spectrograms of the first channel: time from left to right, frequency from the lower edge, and levels
        from -80 dB (black) to those of a sine of full scale (white)."""
        waves = 2 * items[:, 0] - 1
        window = torch.hann_window(FFT)
        spectra = torch.stft(waves, FFT, FFT // 4, window=window, pad_mode="constant", return_complex=True).abs()
        levels = 20 * torch.log10(spectra.clamp(min=1e-6) / (window.sum() / 2))
        return ((levels.flip(1) + 80) / 80).clamp(0, 1)[:, None].expand(-1, 3, -1, -1)

    def recording(self, item: Tensor, side: int | None) -> bytes:
        """Return a WAV file of 16-bit samples. side: samples a second."""
        assert side is not None
        samples = ((2 * item.clamp(0, 1) - 1) * 32767).round().to(torch.int16).T.contiguous()
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setnchannels(samples.shape[1])
            file.setsampwidth(2)
            file.setframerate(side)
            file.writeframes(samples.numpy().astype("<i2").tobytes())
        return buffer.getvalue()


FFT = 256
"""Samples of a window of the spectrograms on the page."""
