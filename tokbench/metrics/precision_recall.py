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
"""k, as in the paper."""

BLOCK = 2048
"""Vectors that are compared with as many others at once."""

_LEAST = 1e-300
"""The least squared distance of two vectors that are not equal."""

TIE = 1e-11
"""By how much of a vector's own square and its radius's two squared distances may differ and count as equal. Products
of 2,048 dimensions in float64 are off by a hundredth of it; features in float32 that are not on a grid are hardly ever
as near."""


class PrecisionRecall(Distribution):
    """`precision`: the share of samples that lie as near to some reference as that one's k-th nearest other reference,
    or nearer. `recall`: the share of references that lie as near to some sample. Both in 0..1, more is better.

    Equal images are at a distance of exactly 0, so that more than k copies of one have no neighbourhood but themselves.
    A distance equal to the radius is within it: distances that differ by no more than their rounding (`TIE`) are equal,
    so that features on a grid, of which many are, have shares that rounding does not decide.
    The paper takes VGG-16's features and as many samples as references; ADM, and most who publish these numbers since,
    Inception's. Both numbers depend on the two counts, which stand in the result: fewer samples have wider
    neighbourhoods.
    """

    least: ClassVar[int] = NEIGHBOURS + 1

    @property
    def _numbers(self) -> tuple[str, str]:
        """`precision_recall_768` gives `precision_768` and `recall_768`."""
        suffix = self._name.removeprefix("precision_recall")
        return f"precision{suffix}", f"recall{suffix}"

    def both(self, reference: np.ndarray, image: np.ndarray) -> tuple[float, float]:
        """Precision and recall of features (n, D) and (m, D)."""
        every = torch.from_numpy(np.concatenate([reference, image]))
        found = Vectors(every, equal_rows(every), every[: len(reference)].mean(0, dtype=torch.float64))
        return shares_within(found[: len(reference)], found[len(reference) :], NEIGHBOURS)

    def statistic(self, reference: np.ndarray, image: np.ndarray) -> float:
        return self.both(reference, image)[0]

    def compute(self) -> dict[str, float]:
        self._enough()
        return dict(zip(self._numbers, self.both(*self._whole()), strict=True))

    def replicates(self, halves: SplitHalves) -> dict[str, Spread]:
        own = self._halved(halves, self.least)
        if own is None:
            return {}
        reference, image = self._whole()
        pairs = zip(own, halves, strict=True)
        found = np.array([self.both(reference[one], image[other]) for one, other in pairs])
        counts = len(image), len(reference)
        return {
            name: Replicates(found[:, at], None, (0.0, 1.0), share_bound(counts[at]))
            for at, name in enumerate(self._numbers)
        }

    def provenance(self) -> dict[str, str]:
        return super().provenance() | {"neighbours": str(NEIGHBOURS)}


@dataclass(frozen=True)
class Vectors:
    """Vectors (n, D), for each a number (n,) that it shares with those equal to it, and an origin (D,) in float64 near
    to them, from which they are measured so that little is lost in the difference of squares."""

    rows: Tensor
    same: Tensor
    origin: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, some: slice) -> Vectors:
        return Vectors(self.rows[some], self.same[some], self.origin)

    def blocks(self) -> Iterator[tuple[slice, Vectors]]:
        """`BLOCK` of them at a time, in float64 and measured from the origin, and where these are."""
        for start in range(0, len(self), BLOCK):
            some = slice(start, start + BLOCK)
            yield some, Vectors(self.rows[some].double() - self.origin, self.same[some], self.origin)


def shares_within(first: Vectors, second: Vectors, neighbours: int) -> tuple[float, float]:
    """The share of the `second` that lie within the neighbourhood of some of the `first`, edge included, and the share
    of the `first` within that of some of the `second`. A vector's neighbourhood reaches to its k-th nearest other."""
    radii = [_with_ties(vectors, squared_radii(vectors, neighbours)) for vectors in (first, second)]
    within = [torch.zeros(len(vectors), dtype=torch.bool) for vectors in (first, second)]
    for here, one in first.blocks():
        for there, other in second.blocks():
            squares = _squares(one, other)
            within[1][there] |= (squares <= radii[0][here, None]).any(0)
            within[0][here] |= (squares <= radii[1][there]).any(1)
    return float(within[1].double().mean()), float(within[0].double().mean())


def _with_ties(vectors: Vectors, radii: Tensor) -> Tensor:
    """Squared radii (n,), of which what lies at that distance but for rounding is within; those of copies stay 0."""
    squares = torch.cat([(block.rows**2).sum(1) for _, block in vectors.blocks()])
    return torch.where(radii > 0, radii + TIE * (squares + radii), radii)


def squared_radii(vectors: Vectors, neighbours: int) -> Tensor:
    """Of each vector the squared distance to its k-th nearest other, float64 (n,). There must be more than k."""
    nearest = torch.full((len(vectors), neighbours + 1), torch.inf, dtype=torch.float64)  # one of them is itself
    for here, one in vectors.blocks():
        for there, other in vectors.blocks():
            if there.start < here.start:
                continue  # the distance is that of the pair the other way round
            squares = _squares(one, other)
            nearest[here] = _least(nearest[here], squares)
            if there != here:
                nearest[there] = _least(nearest[there], squares.T)
    return nearest.amax(1)


def _least(nearest: Tensor, squares: Tensor) -> Tensor:
    """The smallest (n, k) of those so far (n, k) and of more (n, m)."""
    return torch.cat([nearest, squares], 1).topk(nearest.shape[1], dim=1, largest=False, sorted=False).values


def _squares(first: Vectors, second: Vectors) -> Tensor:
    """Squared distances (n, m) in float64: by one product of matrices, since differences take twenty times as long; 0
    where vectors are equal, and only there."""
    squares = [(vectors.rows**2).sum(1) for vectors in (first, second)]
    found = torch.addmm(squares[0][:, None] + squares[1], first.rows, second.rows.T, alpha=-2)
    return found.clamp_(min=_LEAST).masked_fill_(first.same[:, None] == second.same, 0)


def equal_rows(rows: Tensor) -> Tensor:
    """For each row (n, D) a number (n,) that it has in common with the rows equal to it, and with no other."""
    seen: dict[bytes, int] = {}
    found = [seen.setdefault(row.tobytes(), len(seen)) for row in (rows + 0).numpy()]  # + 0 makes 0 of -0
    return torch.tensor(found)
