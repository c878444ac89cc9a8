"""Improved precision and recall of samples (Kynkäänniemi et al. 2019, arXiv:1904.06991), with distances in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from tokbench.metrics.distribution import Distribution
from tokbench.stats.bootstrap import share_bound
from tokbench.stats.split_half import Replicates, SplitHalves
from tokbench.stats.spread import Spread

NEIGHBOURS = 3
"""The number of neighbours k of the paper."""

BLOCK = 2048
"""The number of vectors that are compared with as many others at once."""

_LEAST = 1e-300
"""The squared distance of two different vectors is at least this."""

TIE = 1e-11
"""The relative tolerance of squared distances, with respect to the sum of a vector's squared norm and squared radius.
Float64 products of 2,048 dimensions have errors of a hundredth of it; distances of float32 features that are not on a
grid are hardly ever that close."""


class PrecisionRecall(Distribution):
    """`precision`: the share of samples that lie within the distance of some reference to its k-th nearest other
    reference. `recall`: the share of references that lie within such a distance of some sample. Both are in 0..1;
    higher is better.

    Equal images have a distance of exactly 0, so more than k copies of an image have a neighbourhood without other
    images. A distance equal to the radius counts as inside. Distances that differ only by rounding (`TIE`) count as
    equal, so that rounding does not decide where many features lie on a grid.

    The paper uses VGG-16 features and as many samples as references; ADM and most later publications use Inception
    features. Both numbers depend on the two counts, which the result records: fewer samples have wider neighbourhoods.
    """

    min_images: ClassVar[int] = NEIGHBOURS + 1

    @property
    def _numbers(self) -> tuple[str, str]:
        """The names of the two numbers: `precision_recall_768` gives `precision_768` and `recall_768`."""
        suffix = self._name.removeprefix("precision_recall")
        return f"precision{suffix}", f"recall{suffix}"

    def both(self, reference: np.ndarray, image: np.ndarray) -> tuple[float, float]:
        """Return precision and recall of features (n, D) and (m, D)."""
        features = torch.from_numpy(np.concatenate([reference, image]))
        vectors = Vectors(features, equal_rows(features), features[: len(reference)].mean(0, dtype=torch.float64))
        return shares_within(vectors[: len(reference)], vectors[len(reference) :], NEIGHBOURS)

    def statistic(self, reference: np.ndarray, image: np.ndarray) -> float:
        return self.both(reference, image)[0]

    def compute(self) -> dict[str, float]:
        self._require_images()
        return dict(zip(self._numbers, self.both(*self._all_features()), strict=True))

    def replicates(self, halves: SplitHalves) -> dict[str, Spread]:
        reference_halves = self._usable_halves(halves, self.min_images)
        if reference_halves is None:
            return {}
        reference, image = self._all_features()
        pairs = zip(reference_halves, halves, strict=True)
        values = np.array([self.both(reference[one], image[other]) for one, other in pairs])
        counts = len(image), len(reference)
        return {
            name: Replicates(values[:, at], None, (0.0, 1.0), share_bound(counts[at]))
            for at, name in enumerate(self._numbers)
        }

    def provenance(self) -> dict[str, str]:
        return super().provenance() | {"neighbours": str(NEIGHBOURS)}


@dataclass(frozen=True)
class Vectors:
    """Vectors for the computation of distances.

    rows: (n, D). same: integers (n,), equal for equal rows. origin: (D,) float64, a point near the vectors that is
    subtracted from them to reduce cancellation in differences of squares.
    """

    rows: Tensor
    same: Tensor
    origin: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, span: slice) -> Vectors:
        return Vectors(self.rows[span], self.same[span], self.origin)

    def blocks(self) -> Iterator[tuple[slice, Vectors]]:
        """Yield spans of `BLOCK` vectors, with these vectors in float64 relative to the origin."""
        for start in range(0, len(self), BLOCK):
            span = slice(start, start + BLOCK)
            yield span, Vectors(self.rows[span].double() - self.origin, self.same[span], self.origin)


def shares_within(first: Vectors, second: Vectors, neighbours: int) -> tuple[float, float]:
    """Return the share of `second` within the neighbourhood of some vector of `first`, edge included, and the share of
    `first` within that of some vector of `second`.

    The neighbourhood of a vector extends to its k-th nearest other vector.
    """
    radii = [_with_ties(vectors, squared_radii(vectors, neighbours)) for vectors in (first, second)]
    within = [torch.zeros(len(vectors), dtype=torch.bool) for vectors in (first, second)]
    for rows, one in first.blocks():
        for columns, other in second.blocks():
            squares = _squares(one, other)
            within[1][columns] |= (squares <= radii[0][rows, None]).any(0)
            within[0][rows] |= (squares <= radii[1][columns]).any(1)
    return float(within[1].double().mean()), float(within[0].double().mean())


def _with_ties(vectors: Vectors, radii: Tensor) -> Tensor:
    """Return squared radii (n,) that are enlarged by the rounding error; those of copies stay 0."""
    squares = torch.cat([(block.rows**2).sum(1) for _, block in vectors.blocks()])
    return torch.where(radii > 0, radii + TIE * (squares + radii), radii)


def squared_radii(vectors: Vectors, neighbours: int) -> Tensor:
    """Return for each vector the squared distance to its k-th nearest other vector, float64 (n,). There must be more
    than k."""
    nearest = torch.full(
        (len(vectors), neighbours + 1), torch.inf, dtype=torch.float64
    )  # one neighbour is the vector itself
    for rows, one in vectors.blocks():
        for columns, other in vectors.blocks():
            if columns.start < rows.start:
                continue  # distances are symmetric
            squares = _squares(one, other)
            nearest[rows] = _merge_nearest(nearest[rows], squares)
            if columns != rows:
                nearest[columns] = _merge_nearest(nearest[columns], squares.T)
    return nearest.amax(1)


def _merge_nearest(nearest: Tensor, squares: Tensor) -> Tensor:
    """Return the smallest values (n, k) of the current ones (n, k) and of new ones (n, m)."""
    return torch.cat([nearest, squares], 1).topk(nearest.shape[1], dim=1, largest=False, sorted=False).values


def _squares(first: Vectors, second: Vectors) -> Tensor:
    """Return squared distances (n, m) in float64, which are 0 only for equal vectors. One matrix product takes a
    twentieth of the time of differences."""
    squares = [(vectors.rows**2).sum(1) for vectors in (first, second)]
    distances = torch.addmm(squares[0][:, None] + squares[1], first.rows, second.rows.T, alpha=-2)
    return distances.clamp_(min=_LEAST).masked_fill_(first.same[:, None] == second.same, 0)


def equal_rows(rows: Tensor) -> Tensor:
    """Return integers (n,) for rows (n, D), equal for equal rows and different for different rows."""
    seen: dict[bytes, int] = {}
    numbers = [seen.setdefault(row.tobytes(), len(seen)) for row in (rows + 0).numpy()]  # + 0 makes 0 of -0
    return torch.tensor(numbers)
