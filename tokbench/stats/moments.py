"""Mean and covariance computed from running sums, so that memory does not grow with the number of vectors."""

from __future__ import annotations

import numpy as np
from scipy.linalg.blas import dsyr, dsyrk

Moments = tuple[np.ndarray, np.ndarray]
"""Mean (D,) and covariance (D, D)."""


class RunningMoments:
    """Running float64 sums of vectors (D,) and of their outer products, relative to an `origin` (D,).

    Subtracting the origin limits the cancellation in the covariance. By default it is the first vector added.
    """

    def __init__(self, origin: np.ndarray | None = None) -> None:
        self.count, self.origin = 0, origin
        self._sum: np.ndarray | None = None
        self._products: np.ndarray | None = None  # the lower triangle, in Fortran's order

    def add(self, rows: np.ndarray) -> None:
        """Add vectors (n, D) to the sums."""
        if not len(rows):
            return
        wide = rows.astype(np.float64)
        if self.origin is None:
            self.origin = wide[0].copy()
        wide -= self.origin
        self.count += len(rows)
        if self._sum is None:
            self._sum, self._products = np.zeros(wide.shape[1]), np.zeros((wide.shape[1],) * 2, order="F")
        self._sum += wide.sum(axis=0)
        # The update is in place, and computes only the lower triangle because the products are symmetric.
        self._products = dsyrk(1.0, wide.T, beta=1.0, c=self._products, lower=1, overwrite_c=1)

    def __add__(self, other: RunningMoments) -> RunningMoments:
        """Return the sums over both sets of vectors. Their origins must be equal."""
        assert self.origin is not None and other.origin is not None and np.array_equal(self.origin, other.origin)
        both = RunningMoments(self.origin)
        both.count = self.count + other.count
        assert self._sum is not None and self._products is not None
        assert other._sum is not None and other._products is not None
        both._sum, both._products = self._sum + other._sum, self._products + other._products
        return both

    def moments(self) -> Moments:
        """Return the mean (D,) and the covariance (D, D), which is normalised by count - 1."""
        assert self._sum is not None and self._products is not None and self.origin is not None
        # The lower triangle is computed in place first: with 2,048 dimensions each matrix takes 32 MiB.
        spread = dsyr(-1 / self.count, self._sum, a=self._products.copy(order="F"), lower=1, overwrite_a=1)
        spread /= max(self.count - 1, 1)
        for row in range(len(spread) - 1):
            spread[row, row + 1 :] = spread[row + 1 :, row]
        return self.origin + self._sum / self.count, spread
