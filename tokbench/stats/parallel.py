"""Runs many small linear algebra problems in parallel, each in one thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

T = TypeVar("T")
R = TypeVar("R")

_MAX_THREADS = 8
"""Upper limit on the threads, because each may need several matrices of the size of the feature dimension."""


def map_single_threaded_blas(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Return `function(item)` of every item, in order, computed in a thread pool.

    BLAS is limited to one thread during the call: more threads gain little on matrices of a few hundred rows, and on a
    busy machine they can wait for each other for many times the duration of a single-threaded computation.
    """
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1), "algebra") as pool:
        return list(pool.map(function, items))
