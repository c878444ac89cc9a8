"""The Fréchet distance between two sets of features: rFID, gFID, sFID and FD-EfficientNet."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

from tokbench.metrics.distribution import Distribution, OnSubsets, halved
from tokbench.metrics.sample_store import SampleStore
from tokbench.stats.moments import RunningMoments
from tokbench.stats.parallel import map_single_threaded_blas
from tokbench.stats.split_half import Replicates, SplitHalves
from tokbench.stats.spread import Spread


def frechet_distance(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """Return the squared Fréchet (2-Wasserstein) distance of two Gaussians (Dowson and Landau 1982; Heusel et al. 2017
    eq. 6).

    The trace of (cov1 cov2)^(1/2) is the sum of the square roots of the eigenvalues of L^T cov2 L, which is symmetric,
    for any L with L L^T = cov1. So no square root of a non-symmetric product is needed, and singular covariances give
    neither NaN nor an imaginary part.
    """
    return float(_between_moments(mean1, cov1, mean2, cov2))


def distance_of_sets(first: np.ndarray, second: np.ndarray) -> float:
    """Return the squared Fréchet distance of the Gaussians fitted to vectors (n, D) and (m, D), with covariances
    divided by n - 1.

    For up to D vectors, the covariance is singular and the centred vectors are its exact root, so the trace is the sum
    of the singular values of a matrix of n x m scalar products. That is less work, without the rounding noise of a null
    space.
    """
    if np.array_equal(first, second):
        return 0.0  # without the rounding noise of the difference of equal traces
    return float(_between_sets(first, second))


def distance_to(mean: np.ndarray, covariance: np.ndarray, rows: np.ndarray) -> float:
    """Return the squared Fréchet distance of a Gaussian to that fitted to vectors (n, D), computed with the smaller
    matrix."""
    return float(_to_sets(mean, covariance, rows))


# These compute the same distances for stacks of inputs: (..., D), (..., D, D) and (..., n, D) give (...). The halves of
# a few images are so small that most of the time would otherwise be spent between the calls.


def _between_moments(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> np.ndarray:
    root, failed = (tensor.numpy() for tensor in torch.linalg.cholesky_ex(torch.from_numpy(cov1)))
    if failed.any():  # singular: the eigenvectors give another root
        values, vectors = np.linalg.eigh(cov1)
        root = np.where(failed[..., None, None], vectors * np.sqrt(values.clip(0))[..., None, :], root)
    overlap = _roots_of_eigenvalues(root.swapaxes(-1, -2) @ cov2 @ root)
    return _total(mean1 - mean2, _trace(cov1), _trace(cov2), overlap)


def _between_sets(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    (mean1, root1), (mean2, root2) = _centred(first), _centred(second)
    if max(first.shape[-2], second.shape[-2]) > first.shape[-1]:
        return _between_moments(mean1, root1.swapaxes(-1, -2) @ root1, mean2, root2.swapaxes(-1, -2) @ root2)
    overlap = _singular_values(root1 @ root2.swapaxes(-1, -2))
    return _total(mean1 - mean2, _squares(root1), _squares(root2), overlap)


def _to_sets(mean: np.ndarray, covariance: np.ndarray, rows: np.ndarray) -> np.ndarray:
    row_mean, root = _centred(rows)
    if rows.shape[-2] > rows.shape[-1]:
        return _between_moments(mean, covariance, row_mean, root.swapaxes(-1, -2) @ root)
    overlap = _roots_of_eigenvalues(root @ covariance @ root.swapaxes(-1, -2))
    return _total(mean - row_mean, _trace(covariance), _squares(root), overlap)


def _centred(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean (..., D) and root (..., n, D) with root^T root = covariance, in float64, of rows (..., n, D)."""
    wide = rows.astype(np.float64)
    mean = wide.mean(axis=-2)
    wide -= mean[..., None, :]
    wide /= np.sqrt(wide.shape[-2] - 1)
    return mean, wide


def _trace(matrices: np.ndarray) -> np.ndarray:
    return np.asarray(np.trace(matrices, axis1=-2, axis2=-1))


def _squares(rows: np.ndarray) -> np.ndarray:
    """Return the sum of squares (...) of matrices (..., n, D)."""
    return np.einsum("...nd,...nd->...", rows, rows)


# PyTorch's decompositions release the interpreter's lock, unlike NumPy's; intervals are computed in several threads.


def _singular_values(matrices: np.ndarray) -> np.ndarray:
    """Return the sum of the singular values."""
    return torch.linalg.svdvals(torch.from_numpy(matrices)).sum(-1).numpy()


def _roots_of_eigenvalues(matrices: np.ndarray) -> np.ndarray:
    """Return the sum of the square roots of the eigenvalues of symmetric positive semidefinite matrices, up to
    rounding."""
    return torch.linalg.eigvalsh(torch.from_numpy(matrices)).clamp_(min=0).sqrt_().sum(-1).numpy()


def _total(gap: np.ndarray, trace1: np.ndarray, trace2: np.ndarray, overlap: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, np.einsum("...d,...d->...", gap, gap) + trace1 + trace2 - 2 * overlap)


class Subsets:
    """The distances of many pairs of subsets, of at most D vectors each, of two sets of vectors (N, D) and (M, D).

    Only the scalar products of the vectors are needed, which are computed once: the centred products of a subset are
    some of their rows and columns minus the means.
    """

    def __init__(self, first: np.ndarray, second: np.ndarray) -> None:
        self._same = np.array_equal(first, second)
        origin = first.mean(axis=0, dtype=np.float64)  # this reduces cancellation in the differences below
        self._first, self._second = (rows - origin for rows in (first, second))
        self._products = self._first @ self._second.T
        self._squares = [np.einsum("nd,nd->n", rows, rows) for rows in (self._first, self._second)]

    def distances(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Return the distances (B,) between the vectors at `one` (B, n) in the first set and those at `other` (B, m) in
        the second."""
        products = self._products[one[:, :, None], other[:, None, :]]
        products -= products.mean(axis=1, keepdims=True)
        products -= products.mean(axis=2, keepdims=True)
        means = [_means(rows, at) for rows, at in ((self._first, one), (self._second, other))]
        trace1, trace2 = (
            (squares[at].sum(axis=1) - at.shape[1] * np.einsum("bd,bd->b", mean, mean)) / (at.shape[1] - 1)
            for squares, at, mean in zip(self._squares, (one, other), means, strict=True)
        )
        share = np.sqrt((one.shape[1] - 1) * (other.shape[1] - 1))
        distances = _total(means[0] - means[1], trace1, trace2, _singular_values(products) / share)
        if self._same and one.shape == other.shape:
            distances[(one == other).all(axis=1)] = 0.0
        return distances


def _means(rows: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the means (B, D) of the rows (N, D) at `at` (B, n) without copying the rows."""
    weights = np.zeros((len(at), len(rows)))
    np.put_along_axis(weights, at, 1 / at.shape[1], axis=1)
    return np.asarray(weights @ rows)


class Frechet(Distribution):
    """Fréchet distance between the features of all references and of all images, in one layer of one network.

    Where the features do not fit into memory, sums of vectors and of their products are computed block by block.
    """

    quarters: ClassVar[bool] = True
    needs_rows: ClassVar[bool] = False

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._split: dict[int, float] = {}

    def statistic(self, reference: np.ndarray, image: np.ndarray) -> float:
        return distance_to(*self._moments, image) if self._statistics else distance_of_sets(reference, image)

    def _on_subsets(self, reference: np.ndarray, image: np.ndarray, most: int) -> OnSubsets:
        if not self.compares:
            return lambda _, other: _to_sets(*self._moments, image[other])
        if max(most, most * len(reference) // len(image)) <= image.shape[1]:
            return Subsets(reference, image).distances

        def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
            first, second = reference[one], image[other]
            found = _between_sets(first, second)
            if first.shape == second.shape:
                found[(first == second).all(axis=(1, 2))] = 0.0
            return found

        return distances

    def _fits(self) -> bool:
        return self.rows.fits("image") and (not self.compares or self.references.fits(self._layer))

    def compute(self) -> dict[str, float]:
        self._require_images()
        if self._fits():
            return super().compute()
        part_of = np.zeros(len(self.rows), dtype=np.int64)
        image = sums(self.rows, "image", part_of, 1)[0].moments()
        if not self.compares:
            return {self._name: frechet_distance(*self._moments, *image)}
        part_of = np.zeros(len(self.references), dtype=np.int64)
        reference = sums(self.references, self._layer, part_of, 1)[0].moments()
        if all(np.array_equal(ours, theirs) for ours, theirs in zip(reference, image, strict=True)):
            return {self._name: 0.0}
        return {self._name: frechet_distance(*reference, *image)}

    def replicates(self, halves: SplitHalves) -> dict[str, Spread]:
        if self._fits():
            return super().replicates(halves)
        whole, parts = [], []
        all_reference_halves = self._usable_halves(halves, 2 * self.min_images)
        if all_reference_halves is None:
            return {}
        reference_halves = iter(all_reference_halves)
        image_halves = iter(halves)
        for one, other in zip(image_halves, image_halves, strict=True):
            image = sums(self.rows, "image", _quarters(one, other, len(self.rows)), 4)
            reference: list[RunningMoments] = []
            if self.compares:
                theirs = _quarters(next(reference_halves), next(reference_halves), len(self.references))
                reference = sums(self.references, self._layer, theirs, 4)
            spans = [(0, 2), (2, 4), (0, 1), (1, 2), (2, 3), (3, 4)]
            distances = map_single_threaded_blas(partial(self._between, reference, image), spans)
            whole += distances[:2]
            parts += [(distances[2] + distances[3]) / 2, (distances[4] + distances[5]) / 2]
        return {self._name: Replicates(np.array(whole), np.array(parts))}

    def _between(self, reference: list[RunningMoments], image: list[RunningMoments], span: tuple[int, int]) -> float:
        """Return the distance over the parts from `first` to before `last`."""
        first, last = span
        theirs = _joined(reference[first:last]).moments() if reference else self._moments
        return frechet_distance(*theirs, *_joined(image[first:last]).moments())

    def split_half(self) -> float:
        """Return the distance between complementary halves of the references, M/2 images each, as the mean of `SPLITS`
        pairs.

        This is the noise level at that number of images, with which an unpaired distance can be compared. It does not
        apply to reconstructions, which share the references' images.
        """
        count = len(self.references)
        if count not in self._split:
            halves = list(SplitHalves("reference", count))[: 2 * SPLITS]
            distances = [
                self._distance_of_halves(one, other) for one, other in zip(halves[::2], halves[1::2], strict=True)
            ]
            self._split = {count: float(np.mean(distances))}
        return self._split[count]

    def _distance_of_halves(self, one: np.ndarray, other: np.ndarray) -> float:
        if self.references.fits(self._layer):
            reference = self.references.column(self._layer)
            return distance_of_sets(reference[one], reference[other])
        part_of = np.full(len(self.references), -1)
        part_of[one], part_of[other] = 0, 1
        first, second = sums(self.references, self._layer, part_of, 2)
        return frechet_distance(*first.moments(), *second.moments())

    def provenance(self) -> dict[str, str]:
        facts = super().provenance()
        if self._paired or not self.compares or len(self.references) < 2 * self.min_images:
            return facts
        return facts | {"references": f"{len(self.references)}, {self.split_half():.4g} between halves of them"}


SPLITS = 3
"""The number of pairs of halves of the references that are compared with each other."""


def sums(rows: SampleStore, name: str, part_of: np.ndarray, parts: int) -> list[RunningMoments]:
    """Return the sums of a column (N, D) over each part. part_of: the part of the image at each rank (N,), or -1 for
    none."""
    moments: list[RunningMoments] = []
    for ranks, block in rows.blocks(name):
        if not moments:
            origin = block.mean(axis=0, dtype=np.float64)
            moments = [RunningMoments(origin) for _ in range(parts)]
        for part, part_moments in enumerate(moments):
            part_moments.add(block[part_of[ranks] == part])
    return moments


def _quarters(one: np.ndarray, other: np.ndarray, count: int) -> np.ndarray:
    """Return for every rank below `count`: 0 or 1 in the halves of one half, 2 or 3 in those of the other, else -1."""
    part_of = np.full(count, -1)
    for part, ranks in enumerate((*halved(one), *halved(other))):
        part_of[ranks] = part
    return part_of


def _joined(parts: list[RunningMoments]) -> RunningMoments:
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]
