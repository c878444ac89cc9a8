"""Sets of feature vectors in fewer coordinates, for reference packages whose time grows with the cube of D."""

from __future__ import annotations

import numpy as np


def in_span(*sets: np.ndarray) -> list[np.ndarray]:
    """Return feature sets (n, D) in the coordinates (n, sum of n) of an orthonormal basis of their common span.

    Means, covariances and Fréchet distances do not depend on the basis, and no set has a component outside the span.
    """
    wide = [np.asarray(rows, dtype=np.float64) for rows in sets]
    basis, _ = np.linalg.qr(np.concatenate(wide).T)
    return [rows @ basis for rows in wide]
