"""The number of tokens and bits of a recording, and how much later input an output needs."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch

from tokbench.errors import NotApplicable
from tokbench.metrics.base import PerImageMetric
from tokbench.metrics.batch import Batch
from tokbench.modalities.sound.modality import Waveforms
from tokbench.tokenizers.base import ImageModel, Tokenizer
from tokbench.tokenizers.tokens import Tokens


class SoundRate(PerImageMetric):
    """`sound_tokens_per_second` (except for codecs) and `sound_kbps` (1,000 bits a second).

    The time is that of the whole waveform that was encoded, including the silence with which short recordings are
    padded.
    """

    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        tokens: Tokens = batch.require("tokens")
        seconds = batch.require("image").shape[-1] / batch.require_extra("rates").numpy()
        bits = tokens.bits.numpy()
        if not bits.any():
            raise NotApplicable("the tokens have no bits")
        values = {"sound_kbps": bits / seconds / 1000}
        if int(tokens.length.max()) > 0:
            values["sound_tokens_per_second"] = tokens.length.numpy().astype(np.float64) / seconds
        return values


class Streamable(PerImageMetric):
    """`streamable` (0 or 1) and `lookahead_ms`: by how much the earliest output sample that depends on the second half
    of the input precedes that half, in milliseconds.

    Two waveforms of noise with the same first half are encoded and decoded. A causal tokenizer with frames of F samples
    has at most F - 1 samples of look-ahead. `streamable` is 1 if the look-ahead is at most a fifth of the half. It is
    noise rather than the recording, since a codec stores silence before the middle in the same way whatever follows.
    Only the first recordings of a run have values, since the model runs twice for each.
    """

    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def __init__(self, model: ImageModel, device: str) -> None:
        super().__init__()
        self._model, self._device = model, device

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        reference = batch.require("reference")
        rates = batch.require_extra("rates").numpy()
        values = np.full(len(batch), np.nan)
        early = np.flatnonzero(batch.index.numpy() < RECORDINGS)
        if len(early):
            noises = torch.stack([_noise(reference[0], int(number)) for number in batch.index[early]])
            values[early] = self._lookahead(noises, _noise(reference[0], RECORDINGS)) / rates[early] * 1000
        half = reference.shape[-1] / 2 / rates * 1000
        return {"lookahead_ms": values, "streamable": np.where(np.isnan(values), np.nan, values <= SHARE * half)}

    @torch.inference_mode()
    def _lookahead(self, waves: torch.Tensor, other: torch.Tensor) -> np.ndarray:
        """Return the look-ahead (B,) in samples of waveforms (B, C, N) in [0, 1] whose second half becomes that of
        `other` (C, N)."""
        model = self._model
        if not isinstance(model, Tokenizer):
            raise NotApplicable(f"{model.spec.name}: it is not a tokenizer")
        plan = Waveforms().plan(model.spec, waves.shape[1:])
        middle, (low, high) = waves.shape[-1] // 2, model.spec.range
        changed = waves.clone()
        changed[..., middle:] = other[..., middle:]
        decoded = []
        for given in (waves, changed):
            pieces = plan.cut(given).to(self._device) * (high - low) + low
            decoded.append(plan.join(model.decode(model.encode(pieces), [0] * len(pieces)).float().cpu()))
        differs = (decoded[0] - decoded[1]).abs().amax(1) > DIFFERENCE * (high - low)
        first = torch.where(differs.any(1), differs.int().argmax(1), middle)
        return (middle - first).clamp(min=0).numpy()


def _noise(like: torch.Tensor, seed: int) -> torch.Tensor:
    """Return noise of half the full scale in the shape of a waveform."""
    return 0.25 + torch.rand(like.shape, generator=torch.Generator().manual_seed(seed)) / 2


RECORDINGS, SHARE = 4, 0.2
"""The number of recordings whose look-ahead is measured, and the largest look-ahead of a streamable tokenizer as a
share of half a recording."""

DIFFERENCE = 1e-5
"""The smallest difference of outputs, as a share of the range, that is not due to rounding."""
