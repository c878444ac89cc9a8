"""Where recordings come from: audio files, rows of a Parquet file, and synthetic tones."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tokbench.data.sources.base import Source
from tokbench.errors import UnreadableImage, UsageError
from tokbench.modalities.sound import tones
from tokbench.modalities.sources import FileFolder, Rows

SUFFIXES = (".wav", ".flac", ".ogg", ".aiff", ".aif")
"""Suffixes of audio files that soundfile reads."""

COLUMNS = ("flac",)
"""The column of a Parquet file of recordings: each an encoded audio file."""

MAX_SAMPLES = 1 << 28
"""The largest number of samples of a recording that is read into memory."""


class Recording(NamedTuple):
    """Samples, float32 (N, C) in [-1, 1], at `rate` samples a second."""

    samples: np.ndarray
    rate: int


class RecordingSource(Source, ABC):
    """A source of recordings."""

    @abstractmethod
    def recording(self, position: int, seconds: float | None = None) -> Recording:
        """Return a recording, or only its first `seconds`. Raises UnreadableImage."""


class AudioFiles(FileFolder, RecordingSource):
    """One recording per audio file. The constructor raises UsageError if soundfile is not installed."""

    def __init__(self, path: Path) -> None:
        require_soundfile()
        super().__init__(path, SUFFIXES)

    def recording(self, position: int, seconds: float | None = None) -> Recording:
        return decode_audio(self.read(position), self.names[position], seconds)


class AudioRows(Rows, RecordingSource):
    """Recordings in the rows of a Parquet file, as encoded audio files."""

    def __init__(self, path: Path, where: dict[str, Any] | None = None, label: str | None = None) -> None:
        require_soundfile()
        super().__init__(path, COLUMNS, where, label)

    def recording(self, position: int, seconds: float | None = None) -> Recording:
        return decode_audio(self.row(position)["flac"].as_py(), self.names[position], seconds)


class Tones(RecordingSource):
    """The first `count` recordings of a split of the synthetic tones, computed when they are read."""

    def __init__(self, split: str, count: int) -> None:
        tones.check_split(split)
        self._split = split
        self.names = [f"{split}/{position:06d}" for position in range(count)]

    def recording(self, position: int, seconds: float | None = None) -> Recording:
        samples = tones.render(tones.make_tone(self._split, self._at(position)))
        count = len(samples) if seconds is None else round(seconds * tones.RATE)
        return Recording(samples[:count, None], tones.RATE)

    def labels(self) -> dict[str, int]:
        kinds = (tones.make_tone(self._split, self._at(i)).kind for i in range(len(self.names)))
        return {name: tones.KINDS.index(kind) for name, kind in zip(self.names, kinds, strict=True)}

    def read(self, position: int) -> bytes:
        return self.recording(position).samples.tobytes()

    def listing(self) -> list[tuple[str, int]]:
        return [(f"tones/{self._split}", len(self.names))]


def require_soundfile() -> None:
    """Raise UsageError if soundfile is not installed."""
    try:
        import soundfile  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: its library libsndfile is missing
        raise UsageError(
            "recordings are read by soundfile, which is not installed; pip install 'tokbench[sound]'"
        ) from error


def decode_audio(data: bytes, name: str, seconds: float | None = None) -> Recording:
    """Return the samples of an encoded audio file, or of its first `seconds`. Raises UnreadableImage."""
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate = int(file.samplerate)
            count = -1 if seconds is None else round(seconds * rate)
            most = len(file) if count < 0 else min(len(file), count)
            if most * file.channels > MAX_SAMPLES:
                raise UnreadableImage(f"{name}: it has more than {MAX_SAMPLES:,} samples")
            samples = file.read(most, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as error:
        raise UnreadableImage(f"{name}: it cannot be decoded as audio ({str(error)[:120]})") from error
    if not len(samples):
        raise UnreadableImage(f"{name}: it has no samples")
    if not np.isfinite(samples).all():
        raise UnreadableImage(f"{name}: it has samples that are not finite")
    return Recording(np.asarray(samples), rate)
