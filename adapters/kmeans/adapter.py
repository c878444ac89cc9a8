"""kmeans: k-means codes of image patches, the floor of trained discrete tokenizers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA
from torch import Tensor

from tokbench.errors import DataError
from tokbench.nn.quantizers.residual import ResidualVQ
from tokbench.nn.tokenizer import BottleneckAutoencoder, LearnedTokenizer
from tokbench.nn.trainable import FittedModel
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained

SEED = 0
"""Seed of the sample of patches, of PCA and of k-means."""
PCA_PATCHES = 16_384
"""Number of sampled patches from which the principal components are computed."""


class KMeans(BottleneckAutoencoder, FittedModel):
    """Patches of `patch` x `patch` px, projected on their first `components` principal components and quantized.

    groups: the number of codebooks of `codes` entries each. The first one holds the k-means centres of the projections;
    each further one holds those of the residuals that the codebooks before it leave. per_image: the number of random
    patches of each image to which the model is fitted.
    """

    mean: Tensor
    directions: Tensor
    bottleneck: ResidualVQ

    def __init__(self, patch: int, components: int, codes: int, groups: int, per_image: int) -> None:
        super().__init__()
        self.step, self.per_image, width = patch, per_image, 3 * patch**2
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("directions", torch.zeros(components, width))
        self.bottleneck = ResidualVQ(groups, codes, components)

    @torch.no_grad()
    def fit(self, images: Iterator[Tensor]) -> None:
        patches, codes = self._sample(images), self.bottleneck.codebook_size
        if len(patches) < max(codes, len(self.directions)):
            raise DataError(
                f"{len(patches):,} patches of {self.step}x{self.step} px are too few for {codes:,} codes and "
                f"{len(self.directions)} components; fit to more images"
            )
        order = np.random.default_rng(SEED).permutation(len(patches))
        pca = PCA(len(self.directions), svd_solver="randomized", random_state=SEED).fit(patches[order[:PCA_PATCHES]])
        self.mean.copy_(_as_stored(pca.mean_))
        self.directions.copy_(_as_stored(pca.components_))
        residuals = (torch.from_numpy(patches) - self.mean.cpu()) @ self.directions.cpu().T
        for level in self.bottleneck.levels:
            clusters = MiniBatchKMeans(
                level.codebook_size, batch_size=8192, max_iter=20, max_no_improvement=20, n_init=1, random_state=SEED
            ).fit(residuals.numpy())
            level.codebook.copy_(_as_stored(clusters.cluster_centers_))
            residuals -= torch.cat([level(part[None]).vectors[0].cpu() for part in residuals.split(8192)])

    def _sample(self, images: Iterator[Tensor]) -> np.ndarray:
        """Return `per_image` random patches of each image, float32 (N, 3 * patch^2), from batches (B, 3, H, W)."""
        generator, found = torch.Generator().manual_seed(SEED), []
        for batch in images:
            patches = self._patches(batch).cpu()
            chosen = torch.rand(patches.shape[:2], generator=generator).topk(self.per_image, dim=1).indices
            found.append(patches.take_along_dim(chosen[..., None], 1).flatten(0, 1))
        return torch.cat(found).numpy()

    def _patches(self, images: Tensor) -> Tensor:
        """Cut images (B, 3, H, W) into patches (B, H W / patch^2, 3 patch^2)."""
        return F.unfold(images, self.step, stride=self.step).transpose(1, 2)

    def encoded(self, images: Tensor) -> Tensor:
        projections = (self._patches(images) - self.mean) @ self.directions.T
        return projections.unflatten(1, (images.shape[2] // self.step, images.shape[3] // self.step))

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        size = (vectors.shape[1] * self.step, vectors.shape[2] * self.step)
        patches = vectors.flatten(1, 2) @ self.directions + self.mean
        return F.fold(patches.transpose(1, 2), size, self.step, stride=self.step)


def _as_stored(values: np.ndarray) -> Tensor:
    """Round to float16, the precision of stored weights, so that the residuals are those of the stored codebooks."""
    return torch.from_numpy(values).half().float()


def model(variant: AdapterConfig) -> KMeans:
    """Build the model before fitting."""
    return KMeans(**variant.config["model"])


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the fitted tokenizer. Raises MissingWeights if it is not fitted."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
