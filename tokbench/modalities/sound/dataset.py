"""SoundDataset: waveforms under one protocol."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import ClassVar

import numpy as np

from tokbench.data.stream import Bindable
from tokbench.errors import DataError, UnreadableImage
from tokbench.metric_names import Modality
from tokbench.modalities.dataset import Item, MediaDataset
from tokbench.modalities.sound.modality import SILENCE
from tokbench.modalities.sound.sources import RecordingSource

_MAX_FACTOR = 1000
"""The largest factor of a resampling; larger ones come from unusual rates and would take long filters."""


@dataclass
class SoundDataset(MediaDataset):
    """Mono waveforms (1, N): the first seconds of each recording, padded with silence.

    size: samples a second. Channels are averaged, and other rates are resampled by a polyphase filter (SciPy's
    `resample_poly` with its Kaiser window). Batches have the extras `rates` (samples a second) and `lengths` (samples
    before the padding).
    """

    modality: ClassVar[Modality] = "sound"

    def check_sizes(self) -> None:
        """Without `size`, use the rate of the first readable recording."""
        if self.size is not None:
            return
        reason = ""
        for position in range(len(self)):
            try:
                self.size = self._source.recording(position, 0.01).rate
                return
            except UnreadableImage as error:
                reason = str(error)
        raise DataError(f"{self.name}: no recording could be read ({reason})")

    @property
    def _source(self) -> RecordingSource:
        assert isinstance(self.source, RecordingSource)
        return self.source

    def bind(self, model: Bindable) -> None:
        super().bind(model)
        assert self.size is not None
        model.bind_rate(self.size)

    def item(self, position: int) -> Item:
        seconds, name = self.protocol.sound.seconds, self.source.names[position]
        samples, rate = self._source.recording(position, seconds)
        wave = samples.mean(axis=1)
        target = self.size or rate
        if rate != target:
            common = gcd(rate, target)
            up, down = target // common, rate // common
            if max(up, down) > _MAX_FACTOR:
                raise UnreadableImage(f"{name}: {rate} Hz cannot be resampled to {target} Hz; give --size {rate}")
            from scipy.signal import resample_poly  # slow to import, and most datasets are images

            wave = np.clip(resample_poly(wave.astype(np.float64), up, down), -1, 1).astype(np.float32)
        count = round(seconds * target)
        length = min(len(wave), count)
        values = np.full((1, count), SILENCE, np.float32)
        values[0, :length] = np.clip((wave[:length] + 1) / 2, 0, 1)
        extra = {"rates": np.asarray(float(target)), "lengths": np.asarray(length)}
        return Item(values, extra, rate < target)
