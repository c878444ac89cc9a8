"""Synthetic recordings: tones, chords, chirps, vowels and noise bursts, computed from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokbench.data.synthetic.raster import Draws
from tokbench.errors import DataError

RATE, SECONDS = 8000, 1.0
"""Samples a second, and the length of a recording."""

SPLITS = ("train", "test")

KINDS = ("tone", "chord", "chirp", "vowel", "bursts")
"""The classes, in the order of the labels."""

_CHORDS = ((0, 4, 7), (0, 3, 7), (0, 4, 7, 11), (0, 5, 9))
"""Semitones above the lowest note."""

_FORMANTS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480))
"""The lowest three resonances of four vowels in Hz (Peterson and Barney 1952, men)."""

_PEAK = 0.8
"""The largest absolute sample before the envelope."""


@dataclass(frozen=True)
class Tone:
    """One recording.

    kind: one of KINDS. pitch: the lowest frequency in Hz. end: the last frequency of a chirp in Hz. variant: which
    chord or vowel. partials: the number of harmonics of each note. attack: seconds until the full level. level: the
    largest absolute sample. seed: of the noise.
    """

    kind: str
    pitch: float
    end: float
    variant: int
    partials: int
    attack: float
    level: float
    seed: int


def check_split(split: str) -> None:
    """Raise DataError if there is no such split."""
    if split not in SPLITS:
        raise DataError(f"tones have no split {split!r}; there are: {', '.join(SPLITS)}")


def make_tone(split: str, position: int) -> Tone:
    """Return the recording at a position of a split. The same arguments always give the same one."""
    draws = Draws(f"tokbench tones 1/{split}/{position}")
    return Tone(
        draws.one_of(KINDS), draws.between(90, 500), draws.between(600, 3500), draws.below(4), 1 + draws.below(6),
        draws.between(0.005, 0.1), draws.between(0.2, _PEAK), draws.below(1 << 31),
    )  # fmt: skip


def render(tone: Tone) -> np.ndarray:
    """Return float32 samples (N,) in [-1, 1], rounded to 16 bits, so that the last bits of a machine's sine do not
    matter."""
    time = np.arange(round(RATE * SECONDS)) / RATE
    wave = _WAVES[tone.kind](tone, time)
    wave *= tone.level / max(float(np.abs(wave).max()), 1e-9)
    fade = np.minimum(time / tone.attack, 1) * np.minimum((SECONDS - time) / 0.05, 1)
    return (np.round(wave * fade * 32767) / 32768).astype(np.float32)


def _harmonics(pitch: float, partials: int, time: np.ndarray) -> np.ndarray:
    """Return a note whose harmonics fall by their number; those above half the rate are left out."""
    numbers = [n for n in range(1, partials + 1) if n * pitch < RATE / 2]
    return sum((np.sin(2 * np.pi * n * pitch * time) / n for n in numbers), np.zeros_like(time))


def _tone(tone: Tone, time: np.ndarray) -> np.ndarray:
    return _harmonics(tone.pitch, tone.partials, time)


def _chord(tone: Tone, time: np.ndarray) -> np.ndarray:
    notes = (tone.pitch * 2 ** (step / 12) for step in _CHORDS[tone.variant])
    return sum((_harmonics(note, tone.partials, time) for note in notes), np.zeros_like(time))


def _chirp(tone: Tone, time: np.ndarray) -> np.ndarray:
    slope = (tone.end - tone.pitch) / SECONDS
    return np.sin(2 * np.pi * (tone.pitch * time + slope * time * time / 2))


def _vowel(tone: Tone, time: np.ndarray) -> np.ndarray:
    """Return harmonics of a voice with the resonances of a vowel, each a peak of 80 Hz width."""
    pitch = tone.pitch / 2 + 60
    wave = np.zeros_like(time)
    for n in range(1, int(RATE / 2 / pitch)):
        gain = sum(1 / (1 + ((n * pitch - formant) / 80) ** 2) for formant in _FORMANTS[tone.variant])
        wave += gain * np.sin(2 * np.pi * n * pitch * time)
    return wave


def _bursts(tone: Tone, time: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(tone.seed).uniform(-1, 1, len(time))
    every = 0.08 + tone.attack
    return noise * np.exp(-(time % every) / 0.02)


_WAVES = {"tone": _tone, "chord": _chord, "chirp": _chirp, "vowel": _vowel, "bursts": _bursts}
