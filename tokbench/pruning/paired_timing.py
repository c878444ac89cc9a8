"""Paired timing of two calls: interleaved runs, with an interval and a control."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tokbench.pruning.result import STEADY, BatchTiming, Speedup
from tokbench.stats.bootstrap import RESAMPLES, percentile_interval, round_significant
from tokbench.timing import measure_peak_memory, timed

WARM_UP = 10
"""Untimed calls of each function for every shape; they select kernels and allocate memory."""
TRIES = 5
"""Passes for timing the selection of tokens."""


@dataclass(frozen=True)
class PairedTiming:
    """Seconds of two calls in rounds of first, second, second, first; both arrays are (rounds, 2)."""

    first: np.ndarray
    second: np.ndarray

    @property
    def ratio(self) -> float:
        """Median seconds of the first divided by those of the second; above 1, the second is faster."""
        return float(np.median(self.first) / np.median(self.second))

    @property
    def control(self) -> float:
        """Ratio of the two runs of the first call in each round, in alternating order; 1 without disturbance."""
        turns = self.first.copy()
        turns[1::2] = turns[1::2, ::-1]
        return float(np.median(turns[:, 0]) / np.median(turns[:, 1]))

    def interval(self, seed: int = 0) -> tuple[float, float]:
        """Return the 95 % bootstrap interval of the ratio over rounds."""
        rng = np.random.default_rng(seed)
        drawn = (rng.integers(0, len(self.first), len(self.first)) for _ in range(RESAMPLES))
        ratios = [float(np.median(self.first[rows]) / np.median(self.second[rows])) for rows in drawn]
        return percentile_interval(ratios, self.ratio)

    @property
    def measured(self) -> bool:
        """Whether a difference was measured: the interval excludes 1 and the control is close to 1."""
        low, high = self.interval()
        return not low <= 1 <= high and abs(self.control - 1) <= STEADY


def time_alternately(
    first: Callable[[], object], second: Callable[[], object], repetitions: int, device: str
) -> PairedTiming:
    """Time each call at least `repetitions` times after a warm-up, with device synchronization."""
    for _ in range(WARM_UP):
        first(), second()
    rounds = max(2, -(-repetitions // 2))
    seconds = np.zeros((rounds, 4))
    for row in seconds:
        for place, call in enumerate((first, second, second, first)):
            row[place] = timed(call, device)[1]
    return PairedTiming(seconds[:, [0, 3]], seconds[:, 1:3])


def rounded(value: float) -> float:
    """Return a finite number, rounded for a result file."""
    found = round_significant(value)
    assert found is not None  # shares, times and their ratios are never NaN
    return found


def speedup_of(timing: PairedTiming, parts: int = 1) -> Speedup:
    """Return the speed-up of a timing; milliseconds are those of one of `parts` equal parts of a call."""
    low, high = timing.interval()
    return Speedup(
        value=rounded(timing.ratio),
        low=rounded(low),
        high=rounded(high),
        control=rounded(timing.control),
        measured=timing.measured,
        whole_ms=rounded(float(np.median(timing.first)) * 1000 / parts),
        ms=rounded(float(np.median(timing.second)) * 1000 / parts),
        repetitions=timing.second.size,
    )


def time_batch(
    first: Callable[[], object], second: Callable[[], object], batch: int, repetitions: int, device: str
) -> BatchTiming:
    """Return the timing of a pass of the full network, `first`, and of the reduced one, with their peak memory."""
    timing = time_alternately(first, second, repetitions, device)
    peak, whole_peak = (peak_mib(call, device) for call in (second, first))
    return BatchTiming(batch=batch, speedup=speedup_of(timing), peak_mib=peak, whole_peak_mib=whole_peak)


def peak_mib(call: Callable[[], object], device: str) -> float | None:
    """Return the peak memory of a call in MiB, rounded for a result file; None where it cannot be measured."""
    peak = measure_peak_memory(call, device)[1]
    return None if peak is None else rounded(peak)


class Timing(Protocol):
    """A timing in a row. speedups: all that were measured for it. tries: the number of timing runs."""

    @property
    def speedups(self) -> tuple[Speedup, ...]: ...

    @property
    def tries(self) -> int: ...


def disturbed(timing: Timing) -> bool:
    """Return whether a control timing deviates, which indicates other load on the machine."""
    return any(abs(one.control - 1) > STEADY for one in timing.speedups)
