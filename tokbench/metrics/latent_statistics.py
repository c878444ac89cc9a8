"""Statistics of the channels of latents over all images, and their effective rank."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import torch

from tokbench.errors import NotApplicable
from tokbench.metrics.base import Metric
from tokbench.metrics.batch import Batch
from tokbench.metrics.latents import vectors_of
from tokbench.stats.split_half import SplitHalves
from tokbench.stats.spread import Jackknife, Spread, groups
from tokbench.tokenizers.base import ImageModel

MAX_VALUES = 4096
"""The largest number of values that are stored per image; of more, the vectors at random positions are stored, the
same for all images."""

_BOUNDS = {
    "latent_mean": (0.0, math.inf),
    "latent_std": (0.0, math.inf),
    "latent_std_ratio": (0.0, 1.0),
    "latent_kurtosis": (-2.0, math.inf),
    "effective_rank": (1.0, math.inf),
    "effective_rank_share": (0.0, 1.0),
}


@dataclass(frozen=True)
class ChannelMoments:
    """Sums over vectors (D,), relative to an `origin` (D,) that limits cancellation.

    count: number of vectors. powers: (4, D), the sums of the first four powers of each channel. products: (D, D), the
    sum of outer products.
    """

    origin: np.ndarray
    count: int
    powers: np.ndarray
    products: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray, origin: np.ndarray) -> ChannelMoments:
        """Return the sums over vectors (n, D)."""
        wide = vectors.astype(np.float64) - origin
        powers = np.stack([(wide**power).sum(0) for power in range(1, 5)])
        return cls(origin, len(wide), powers, wide.T @ wide)

    def __add__(self, other: ChannelMoments) -> ChannelMoments:
        """Return the sums over both sets of vectors, whose origins must be equal."""
        return ChannelMoments(
            self.origin, self.count + other.count, self.powers + other.powers, self.products + other.products
        )

    def __sub__(self, other: ChannelMoments) -> ChannelMoments:
        """Return the sums without the vectors of `other`, which must be among those of this set."""
        return ChannelMoments(
            self.origin, self.count - other.count, self.powers - other.powers, self.products - other.products
        )

    def statistics(self) -> dict[str, float]:
        """Return the numbers of LatentStatistics."""
        first, second, third, fourth = self.powers / self.count
        variance = (second - first**2).clip(0)
        central = fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4
        moving = variance > _CONSTANT * max(float(variance.max()), np.finfo(np.float64).tiny)
        deviation = np.sqrt(np.where(moving, variance, 0.0))
        covariance = self.products / self.count - np.outer(first, first)
        shares = torch.linalg.eigvalsh(torch.from_numpy(covariance)).clamp(min=0).numpy()
        total = shares.sum()
        shares = shares[shares > 0] / total if total > 0 else np.ones(1)
        rank = math.exp(max(0.0, -float((shares * np.log(shares)).sum())))
        kurtosis = float((central[moving] / variance[moving] ** 2).mean()) - 3 if moving.any() else math.nan
        return {
            "latent_mean": math.sqrt(float(((self.origin + first) ** 2).mean())),
            "latent_std": math.sqrt(float((deviation**2).mean())),
            "latent_std_ratio": float(deviation.min() / deviation.max()) if deviation.max() else math.nan,
            "latent_kurtosis": kurtosis,
            "effective_rank": rank,
            "effective_rank_share": rank / len(first),
        }


_CONSTANT = 1e-12
"""A channel whose variance is at most this share of the largest one counts as constant."""


class LatentStatistics(Metric):
    """Statistics of the channels of the tokens' vectors (`Tokenizer.vectors`) over all images and positions.

    `latent_mean`, `latent_std`: root mean square, over channels, of the mean and of the standard deviation of a
    channel. `latent_std_ratio`: the smallest standard deviation of a channel divided by the largest one; 0 if a channel
    is constant. `latent_kurtosis`: mean excess kurtosis of the channels that are not constant; 0 for a normal
    distribution. `effective_rank`: exp of the entropy of the normalized eigenvalues of the covariance of the channels
    (Roy and Vetterli 2007), between 1 and the number of channels; `effective_rank_share`: divided by that number.

    Vectors of codes are those that the decoder gets. Of images with more than 4,096 values, some positions are stored,
    the same for all images. Intervals come from leaving out one of 25 groups of images at a time.
    """

    def __init__(self, model: ImageModel) -> None:
        super().__init__()
        self._model = model

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        """Return vectors (B, P, D) of each image. Raises NotApplicable if tokens are not vectors."""
        vectors = vectors_of(self._model, batch.require("tokens"), tuple(batch.require("image").shape[2:]))
        rows = vectors.flatten(1, -2) if vectors.dim() > 2 else vectors[:, None]
        kept = max(1, MAX_VALUES // rows.shape[2])
        if rows.shape[1] > kept:
            rows = rows[:, np.sort(np.random.default_rng(0).permutation(rows.shape[1])[:kept])]
        return {"vectors": rows.numpy()}

    def compute(self) -> dict[str, float]:
        """Raises NotApplicable if there are fewer than two vectors."""
        (whole,) = self._moments(np.zeros(len(self.rows), dtype=np.int64))
        if whole.count < 2:
            raise NotApplicable("needs at least two vectors")
        return whole.statistics()

    def replicates(self, halves: SplitHalves) -> dict[str, Spread]:
        count = len(self.rows)
        if count < 3:
            return {}
        parts = self._moments(groups(halves.sha256, count))
        whole = reduce(add, parts)
        without = [(whole - part).statistics() for part in parts]
        return {name: Jackknife(np.array([one[name] for one in without]), bounds) for name, bounds in _BOUNDS.items()}

    def provenance(self) -> dict[str, str]:
        return {"vectors": "Tokenizer.vectors"}

    def _moments(self, group: np.ndarray) -> list[ChannelMoments]:
        """Return the moments of each group of images. group: the group of the image at each rank, int64 (n,)."""
        moments: dict[int, ChannelMoments] = {}
        origin: np.ndarray | None = None
        for ranks, rows in self.rows.blocks("vectors"):
            origin = rows[0].mean(0, dtype=np.float64) if origin is None else origin
            for one in np.unique(group[ranks]).tolist():
                own = ChannelMoments.of(rows[group[ranks] == one].reshape(-1, rows.shape[2]), origin)
                moments[one] = moments[one] + own if one in moments else own
        return [moments[one] for one in sorted(moments)]
