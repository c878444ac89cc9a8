"""Range ANS: an entropy coder on integers (Duda 2013, arXiv:1311.2540), many lanes at a time as NumPy vectors.

Symbol i is coded in lane i modulo the lanes. The bytes are each lane's last state, then the 32-bit words that the lanes
shed, in the order in which the decoder wants them. The encoder starts from the end, as ANS is last in, first out.
"""

from __future__ import annotations

import numpy as np

from tokbench.errors import TokbenchError

PRECISION = 24
"""Bits of a probability: the frequencies of all symbols add up to 2^24."""

_LEAST = np.uint64(1 << 31)
"""States lie in [2^31, 2^63): 2^7 above the precision, so that a symbol costs what its frequency says, to 0.1 %."""

_LANE = 2**13
"""Symbols to a lane. A lane costs 32 to 64 bits beyond its symbols' own."""


class NotLossless(TokbenchError):
    """A coder did not give back what it had coded: a fault of tokbench or of a library, never of a tokenizer."""


def encode(symbols: np.ndarray, frequencies: np.ndarray) -> bytes:
    """Symbols (n,) in [0, A), none of frequency 0, as bytes; frequencies uint64 (A,) add up to 2^24."""
    states = np.full(_lanes(len(symbols)), _LEAST)
    starts = np.cumsum(frequencies) - frequencies
    words: list[np.ndarray] = []
    for first in reversed(range(0, len(symbols), max(1, len(states)))):
        own = symbols[first : first + len(states)]
        lanes, share = states[: len(own)], frequencies[own]
        full = lanes >= share << np.uint64(63 - PRECISION)
        words.append(lanes[full].astype("<u4"))
        lanes[full] >>= np.uint64(32)
        lanes[:] = (lanes // share << np.uint64(PRECISION)) + lanes % share + starts[own]
    return states.astype("<u8").tobytes() + b"".join(some.tobytes() for some in reversed(words))


def decode(data: bytes, count: int, frequencies: np.ndarray) -> tuple[np.ndarray, int]:
    """The `count` symbols (n,) that `encode` put at the start of `data`, and how many bytes of it they took.

    Raises NotLossless where there are too few bytes.
    """
    symbols, states = np.zeros(count, dtype=np.int64), np.frombuffer(data[: 8 * _lanes(count)], "<u8").astype(np.uint64)
    rest = data[states.nbytes :]
    words, taken = np.frombuffer(rest[: len(rest) // 4 * 4], "<u4").astype(np.uint64), 0
    ends = np.cumsum(frequencies)
    starts = ends - frequencies
    for first in range(0, count, max(1, len(states))):
        lanes = states[: count - first]
        slots = lanes & np.uint64(2**PRECISION - 1)
        own = ends.searchsorted(slots, side="right")
        symbols[first : first + len(lanes)] = own
        lanes[:] = frequencies[own] * (lanes >> np.uint64(PRECISION)) + slots - starts[own]
        low = np.flatnonzero(lanes < _LEAST)
        if taken + len(low) > len(words):
            raise NotLossless(f"an entropy coder's {len(data):,} bytes end before its {count:,} symbols")
        lanes[low] = lanes[low] << np.uint64(32) | words[taken : taken + len(low)]
        taken += len(low)
    return symbols, states.nbytes + 4 * taken


def _lanes(count: int) -> int:
    return min(count, max(1, count // _LANE))


def quantised(weights: np.ndarray) -> np.ndarray:
    """Frequencies uint64 (A,), as near to weights (A,) as integers that add up to 2^24 can be; at least 1 where a
    weight is not 0."""
    present = weights > 0
    free = 2**PRECISION - int(np.count_nonzero(present))
    exact = weights / weights.sum() * free
    made = np.floor(exact)
    made[np.argsort(made - exact, kind="stable")[: free - int(made.sum())]] += 1
    return (made + present).astype(np.uint64)
