"""Range ANS: an entropy coder on integers (Duda 2013, arXiv:1311.2540), many lanes at a time as NumPy vectors.

One stream of bytes holds any number of parts, each a run of symbols with frequencies of their own, so that what a
stream costs beyond its symbols is paid once. Symbol i, counted through all parts, is coded in lane i modulo the lanes.
The bytes are each lane's last state, then the 32-bit words that the lanes shed, in the order in which the decoder wants
them. The encoder starts from the end, as ANS is last in, first out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tokbench.errors import TokbenchError

PRECISION = 24
"""Bits of a probability: the frequencies of all symbols add up to 2^24."""

_LEAST = np.uint64(1 << 31)
"""States lie in [2^31, 2^63): 2^7 above the precision, so that a symbol costs what its frequency says, to 0.1 %."""

_LANE = 2**16
"""Symbols to a lane. A lane costs 32 to 64 bits beyond its symbols' own: at most a thousandth of a bit a symbol, where
there are so many. Each step of all lanes takes some microseconds, so that a stream takes seconds at most."""


class NotLossless(TokbenchError):
    """A coder did not give back what it had coded: a fault of tokbench or of a library, never of a tokenizer."""


def lanes(count: int) -> int:
    """How many lanes a stream of about `count` symbols has: one for each 65,536 of them, and at least one."""
    return max(1, count // _LANE)


def encode(parts: Sequence[tuple[np.ndarray, np.ndarray]], width: int) -> bytes:
    """The bytes of all parts in `width` lanes.

    A part is its symbols (n,) in [0, A), none of frequency 0, and their frequencies, uint64 (A,), which add up to 2^24.
    No symbols at all are no bytes.
    """
    states = np.full(width, _LEAST)
    words: list[np.ndarray] = []
    end = sum(len(symbols) for symbols, _ in parts)
    if not end:
        return b""
    for symbols, frequencies in reversed(parts):
        end -= len(symbols)
        starts = np.cumsum(frequencies) - frequencies
        for first, last in reversed(list(_rows(end, len(symbols), width))):
            own = symbols[first - end : last - end]
            row = states[first % width : first % width + len(own)]
            share = frequencies[own]
            full = row >= share << np.uint64(63 - PRECISION)
            words.append(row[full].astype("<u4"))
            row[full] >>= np.uint64(32)
            row[:] = (row // share << np.uint64(PRECISION)) + row % share + starts[own]
    return states.astype("<u8").tobytes() + b"".join(some.tobytes() for some in reversed(words))


class Decoder:
    """Takes the parts of what `encode` made out of it again, first to last."""

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
        """The next `count` symbols, int64 (count,). Raises NotLossless where there are too few bytes."""
        if count and not len(self._states):
            raise NotLossless(f"an entropy coder's {self._size:,} bytes hold no symbol, not {count:,}")
        symbols = np.zeros(count, dtype=np.int64)
        ends = np.cumsum(frequencies)
        starts = ends - frequencies
        begin, self._at = self._at, self._at + count
        for first, last in _rows(begin, count, self._width):
            row = self._states[first % self._width : first % self._width + last - first]
            slots = row & np.uint64(2**PRECISION - 1)
            own = ends.searchsorted(slots, side="right")
            symbols[first - begin : last - begin] = own
            row[:] = frequencies[own] * (row >> np.uint64(PRECISION)) + slots - starts[own]
            low = np.flatnonzero(row < _LEAST)
            if self._taken + len(low) > len(self._words):
                raise NotLossless(f"an entropy coder's {self._size:,} bytes end before symbol {last:,}")
            row[low] = row[low] << np.uint64(32) | self._words[self._taken : self._taken + len(low)]
            self._taken += len(low)
        return symbols


def _rows(begin: int, count: int, width: int) -> Iterator[tuple[int, int]]:
    """First and last (exclusive) of the runs of symbols from `begin` on that lie beside each other in the lanes."""
    first, end = begin, begin + count
    while first < end:
        last = min(end, (first // width + 1) * width)
        yield first, last
        first = last


def quantised(weights: np.ndarray) -> np.ndarray:
    """Frequencies uint64 (A,), as near to weights (A,) as integers that add up to 2^24 can be; at least 1 where a
    weight is not 0."""
    present = weights > 0
    free = 2**PRECISION - int(np.count_nonzero(present))
    exact = weights / weights.sum() * free
    made = np.floor(exact)
    made[np.argsort(made - exact, kind="stable")[: free - int(made.sum())]] += 1
    return (made + present).astype(np.uint64)
