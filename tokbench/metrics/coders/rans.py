"""Range ANS: an entropy coder on integers (Duda 2013, arXiv:1311.2540), with many lanes at a time as NumPy vectors.

One stream of bytes holds any number of parts, each a sequence of symbols with its own frequencies, so the overhead of a
stream is paid once. Symbol i, counted through all parts, is coded in lane i modulo the number of lanes. The bytes are
each lane's last state, then the 32-bit words that the lanes emit, in the order in which the decoder reads them. The
encoder starts at the end, since ANS is last in, first out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tokbench.errors import TokbenchError

PRECISION = 24
"""The bits of a probability: the frequencies of all symbols add up to 2^24."""

_MIN_STATE = np.uint64(1 << 31)
"""States lie in [2^31, 2^63), 2^7 above the precision, so that a symbol costs what its frequency implies, to 0.1 %."""

_LANE = 2**16
"""Symbols per lane. A lane has an overhead of 32 to 64 bits, which is at most a thousandth of a bit per symbol. Each
step of all lanes takes some microseconds, so a stream takes seconds at most."""


class NotLossless(TokbenchError):
    """A coder did not reproduce what it had coded. This is an error of tokbench or of a library, never of a
    tokenizer."""


def lanes(count: int) -> int:
    """Return the number of lanes of a stream of about `count` symbols: one per 65,536 symbols, and at least one."""
    return max(1, count // _LANE)


def encode(parts: Sequence[tuple[np.ndarray, np.ndarray]], width: int) -> bytes:
    """Encode all parts in `width` lanes and return the bytes.

    A part consists of its symbols (n,) in [0, A), none of frequency 0, and their frequencies, uint64 (A,), which add up
    to 2^24. Without symbols the result is empty.
    """
    states = np.full(width, _MIN_STATE)
    words: list[np.ndarray] = []
    end = sum(len(symbols) for symbols, _ in parts)
    if not end:
        return b""
    for symbols, frequencies in reversed(parts):
        end -= len(symbols)
        starts = np.cumsum(frequencies) - frequencies
        for first, last in reversed(list(_rows(end, len(symbols), width))):
            values = symbols[first - end : last - end]
            row = states[first % width : first % width + len(values)]
            share = frequencies[values]
            full = row >= share << np.uint64(63 - PRECISION)
            words.append(row[full].astype("<u4"))
            row[full] >>= np.uint64(32)
            row[:] = (row // share << np.uint64(PRECISION)) + row % share + starts[values]
    return states.astype("<u8").tobytes() + b"".join(part.tobytes() for part in reversed(words))


class Decoder:
    """Decodes the parts that `encode` coded, first to last."""

    def __init__(self, data: bytes, width: int) -> None:
        """Raises NotLossless where `data`, unless it is empty, is too short for the states of `width` lanes."""
        if data and len(data) < 8 * width:
            raise NotLossless(f"an entropy coder's {len(data):,} bytes end before its {width:,} states")
        self._size, self._width = len(data), width
        self._states = np.frombuffer(data[: 8 * width], "<u8").astype(np.uint64)
        rest = data[8 * width :]
        self._words = np.frombuffer(rest[: len(rest) // 4 * 4], "<u4").astype(np.uint64)
        self._at = self._taken = 0

    def take(self, count: int, frequencies: np.ndarray) -> np.ndarray:
        """Return the next `count` symbols, int64 (count,). Raises NotLossless where bytes are missing."""
        if count and not len(self._states):
            raise NotLossless(f"an entropy coder's {self._size:,} bytes contain no symbols instead of {count:,}")
        symbols = np.zeros(count, dtype=np.int64)
        ends = np.cumsum(frequencies)
        starts = ends - frequencies
        begin, self._at = self._at, self._at + count
        for first, last in _rows(begin, count, self._width):
            row = self._states[first % self._width : first % self._width + last - first]
            slots = row & np.uint64(2**PRECISION - 1)
            values = ends.searchsorted(slots, side="right")
            symbols[first - begin : last - begin] = values
            row[:] = frequencies[values] * (row >> np.uint64(PRECISION)) + slots - starts[values]
            low = np.flatnonzero(row < _MIN_STATE)
            if self._taken + len(low) > len(self._words):
                raise NotLossless(f"an entropy coder's {self._size:,} bytes end before symbol {last:,}")
            row[low] = row[low] << np.uint64(32) | self._words[self._taken : self._taken + len(low)]
            self._taken += len(low)
        return symbols


def _rows(begin: int, count: int, width: int) -> Iterator[tuple[int, int]]:
    """Yield first and last (exclusive) of the sequences of symbols, from `begin` on, that lie in consecutive lanes."""
    first, end = begin, begin + count
    while first < end:
        last = min(end, (first // width + 1) * width)
        yield first, last
        first = last


def quantised(weights: np.ndarray) -> np.ndarray:
    """Return frequencies uint64 (A,), integers proportional to weights (A,) as far as possible, which add up to 2^24.
    They are at least 1 where a weight is not 0."""
    present = weights > 0
    free = 2**PRECISION - int(np.count_nonzero(present))
    exact = weights / weights.sum() * free
    rounded = np.floor(exact)
    rounded[np.argsort(rounded - exact, kind="stable")[: free - int(rounded.sum())]] += 1
    return (rounded + present).astype(np.uint64)
