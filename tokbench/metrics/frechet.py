"""The Fréchet distance between two sets of features: rFID and every other name of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from tokbench.batch import Batch
from tokbench.errors import NotApplicable
from tokbench.metrics.metric import Metric

if TYPE_CHECKING:
    from tokbench.readers.network import Network


class Gaussian:
    """Count, mean and covariance of feature vectors (D,) that come in batches, in float64.

    Up to D vectors are kept as they are: their covariance is singular, and the vectors themselves are its exact root.
    From then on only sums are, so that memory does not grow with the number of images.
    """

    def __init__(self) -> None:
        self.count = 0
        self._rows: list[np.ndarray] | None = []
        self._sum: np.ndarray | float = 0.0
        self._products: np.ndarray | float = 0.0

    def add(self, features: np.ndarray) -> None:
        """Take in features (B, D)."""
        wide = features.astype(np.float64)
        self.count += len(wide)
        if self._rows is not None:
            self._rows.append(wide)
            if self.count > wide.shape[1]:
                self._fold()
        else:
            self._accumulate(wide)

    def _fold(self) -> None:
        if self._rows:
            self._accumulate(np.concatenate(self._rows))
        self._rows = None

    def _accumulate(self, wide: np.ndarray) -> None:
        self._sum = self._sum + wide.sum(axis=0)
        self._products = self._products + wide.T @ wide

    def merge(self, other: Gaussian) -> None:
        """Take in all that `other` has seen. `other` is left as it was."""
        if other._rows is not None:
            for rows in other._rows:
                self.add(rows)
            return
        self._fold()
        self.count += other.count
        self._sum = self._sum + other._sum
        self._products = self._products + other._products

    @property
    def mean(self) -> np.ndarray:
        """(D,)."""
        if self._rows is not None:
            return np.asarray(np.concatenate(self._rows).mean(axis=0))
        return np.asarray(self._sum / self.count)

    @property
    def covariance(self) -> np.ndarray:
        """Sample covariance (D, D), divided by N - 1 as in every published FID code."""
        if self._rows is not None:
            root = self.root
            return np.asarray(root @ root.T)
        return np.asarray((self._products - self.count * np.outer(self.mean, self.mean)) / (self.count - 1))

    @property
    def root(self) -> np.ndarray:
        """(D, R) with root root^T = covariance."""
        if self._rows is not None:
            return np.asarray((np.concatenate(self._rows) - self.mean).T / np.sqrt(self.count - 1))
        return root_of(self.covariance)


def root_of(covariance: np.ndarray) -> np.ndarray:
    """(D, R) with root root^T = covariance (D, D), R its numerical rank."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def frechet_distance(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians (Dowson and Landau 1982; Heusel et al. 2017 eq. 6)."""
    return distance_of_roots(mean1, root_of(cov1), mean2, root_of(cov2))


def distance_of_roots(mean1: np.ndarray, root1: np.ndarray, mean2: np.ndarray, root2: np.ndarray) -> float:
    """The same from roots (D, R) of the covariances.

    The trace of (cov1 cov2)^(1/2) is the sum of the singular values of root1^T root2. So no square root is taken of a
    product that is not symmetric, and singular covariances give neither NaN nor an imaginary part.
    """
    overlap = np.linalg.svd(root1.T @ root2, compute_uv=False).sum()
    gap = mean1 - mean2
    return max(0.0, float(gap @ gap + (root1**2).sum() + (root2**2).sum() - 2 * overlap))


class Frechet(Metric):
    """Fréchet distance between the features of all references and of all images, in one layer of one network."""

    def __init__(self, name: str, network: Network, layer: str) -> None:
        network.want(layer)
        self._name, self._network, self._layer = name, network, layer
        self._reference, self._image = Gaussian(), Gaussian()

    def update(self, batch: Batch) -> None:
        self._reference.add(batch.features(self._network, "reference")[self._layer].numpy())
        self._image.add(batch.features(self._network, "image")[self._layer].numpy())

    def merge(self, other: Self) -> None:
        self._reference.merge(other._reference)
        self._image.merge(other._image)

    def compute(self) -> dict[str, float]:
        if self._image.count < 2:
            raise NotApplicable(f"needs at least 2 images; there is {self._image.count}")
        ours, theirs = self._reference, self._image
        return {self._name: distance_of_roots(ours.mean, ours.root, theirs.mean, theirs.root)}

    def provenance(self) -> dict[str, str]:
        return {"network": self._network.name, "layer": self._layer, "sha256": self._network.sha256}
