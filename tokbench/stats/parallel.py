"""Many small problems of linear algebra at once: one thread each, as many as there are processors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

T = TypeVar("T")
R = TypeVar("R")

_MOST = 8
"""Threads, since each may need several matrices of the features' dimension."""


def map_single_threaded_blas(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`function` of every item, in order.

    BLAS is held to one thread meanwhile: several threads gain little on matrices of a few hundred rows, and on a busy
    machine they wait for one another for many times as long as one alone would take.
    """
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(min(_MOST, os.cpu_count() or 1), "algebra") as pool:
        return list(pool.map(function, items))
