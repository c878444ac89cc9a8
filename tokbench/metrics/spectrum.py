"""Spectra of latents and images: spectral match, and the decoder's output for low-pass latents (arXiv:2603.14645)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import dctn, idctn
from torch import Tensor

from tokbench.errors import NotApplicable
from tokbench.metrics.base import PerImageMetric
from tokbench.metrics.batch import Batch, DerivedCache
from tokbench.metrics.feature_cache import ReferenceFeatures
from tokbench.metrics.frechet import Frechet
from tokbench.metrics.latents import decode_tokens, grid_of, grid_vectors, latents_of, with_layout
from tokbench.metrics.sample_store import SampleStore
from tokbench.tokenizers.base import ImageModel

BINS = 16
"""Number of radial bins of a spectrum."""

_ROUNDING = 1e-10
"""The share of the constant's power below which all other power comes from rounding in float32."""

SMALLEST = 4
"""The smallest side of a grid whose spectrum is compared."""


class SpectralMatch(PerImageMetric):
    """`spectral_match`: how far the spectrum of an image's latents is from that of the image at the size of the grid,
    as a Kullback-Leibler divergence in nats (arXiv:2603.14645); 0 if both have the same shape.

    A spectrum is the power of the orthonormal DCT, mean over the channels, without the constant, averaged in 16 radial
    bins; log(1 + power) is divided by its sum. The image, in [-1, 1], is reduced to the size of the grid by a bicubic
    filter with antialiasing. The divergence is that of the latents' spectrum from the image's. It depends on the scale
    of the latents, since log(1 + power) does. Codes are compared by their vectors. Images of one colour have no
    spectrum and are left out.
    """

    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def __init__(self, model: ImageModel) -> None:
        super().__init__()
        self._model = model

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        reference: Tensor = batch.require("reference")
        size = reference.shape[2], reference.shape[3]
        vectors = grid_vectors(self._model, batch.require("tokens"), size)
        grid = vectors.shape[1:3]
        if min(grid) < SMALLEST:
            raise NotApplicable(f"a grid of {grid[0]}x{grid[1]} tokens has too few frequencies; at least {SMALLEST}")
        small = F.interpolate(reference * 2 - 1, size=grid, mode="bicubic", antialias=True)
        ours, theirs = spectrum(vectors.movedim(-1, 1)), spectrum(small)
        ratio = np.log(np.maximum(theirs, 1e-12)) - np.log(np.maximum(ours, 1e-12))
        divergence = np.maximum(0.0, (theirs * ratio).sum(1))
        return {"spectral_match": np.where(theirs.any(1), divergence, np.nan)}

    def provenance(self) -> dict[str, str]:
        return {"bins": str(BINS)}


def spectrum(maps: Tensor) -> np.ndarray:
    """Return the normalized radial spectra, float64 (B, 16), of maps (B, C, h, w). A constant map has zeros."""
    power = (dctn(maps.double().numpy(), axes=(-2, -1), norm="ortho") ** 2).mean(1)
    constant, power[:, 0, 0] = power[:, 0, 0].copy(), 0
    power[power.sum((1, 2)) <= _ROUNDING * constant] = 0
    height, width = power.shape[1:]
    radius = np.hypot(*np.meshgrid(np.arange(height), np.arange(width), indexing="ij"))
    band = np.minimum((radius / radius.max() * BINS).astype(np.int64), BINS - 1).ravel()
    counts = np.bincount(band, minlength=BINS)
    counts[0] -= 1  # the constant
    sums = np.stack([np.bincount(band, one.ravel(), BINS) for one in power])
    logs = np.log1p(sums / np.maximum(counts, 1))
    return np.asarray(logs / np.maximum(logs.sum(1, keepdims=True), 1e-300))


def low_pass(maps: Tensor) -> Tensor:
    """Return maps (..., h, w) without the DCT coefficients (u, v) with u/(h - 1) + v/(w - 1) > 1."""
    height, width = maps.shape[-2:]
    down, across = (np.arange(side) / max(side - 1, 1) for side in (height, width))
    kept = down[:, None] + across <= 1
    coefficients = dctn(maps.float().numpy(), axes=(-2, -1), norm="ortho") * kept.astype(np.float32)
    return torch.from_numpy(idctn(coefficients, axes=(-2, -1), norm="ortho"))


class LowPassFrechet(Frechet):
    """The Fréchet distance between images decoded from low-pass latents and originals with the same low-pass filter.

    The filter zeroes the upper half of the DCT coefficients by the sum of their relative vertical and horizontal
    frequency (`low_pass`), those of latents and of pixels alike. It is small if the decoder maps low frequencies of
    latents to low frequencies of images ("decoding spectrum matching", arXiv:2603.14645, where blocks are filtered).
    """

    def __init__(self, *given: Any, model: ImageModel, batch_size: int, **named: Any) -> None:
        super().__init__(*given, **named)
        self._model, self._batch_size = model, batch_size

    def stores(self) -> dict[str, SampleStore]:
        return {"": self.rows, "references": self.references}

    def stores_of(self, chunk: int) -> list[str]:
        return ["", "references"]

    def share_references(self, references: ReferenceFeatures) -> None:
        """Do nothing: the filtered originals are stored with the images."""

    def missing_references(self, references: ReferenceFeatures, index: np.ndarray, digests: Any) -> bool:
        return False

    def update(self, batch: Batch) -> None:
        """Update the metric with the filtered images. Raises NotApplicable where tokens are not a grid of latents."""
        super().update(self._filtered(batch))

    def _filtered(self, batch: Batch) -> Batch:
        reference, tokens = batch.require("reference"), batch.require("tokens")
        with batch.reference_memo.lock:
            key = "low-pass", 0
            if key not in batch.reference_memo.images:
                batch.reference_memo.images[key] = low_pass(reference).clamp(0, 1), DerivedCache()
            key = "low-pass", id(self._model)
            if key not in batch.image_memo.images:
                size = tuple(reference.shape[2:])
                latents_of(self._model, tokens)
                filtered = with_layout(self._model, tokens).map_grid(
                    grid_of(self._model, size),
                    lambda data: low_pass(data.cpu()).to(data),
                    self._model.spec.name,
                )
                image = decode_tokens(self._model, filtered, batch, self._batch_size)
                batch.image_memo.images[key] = image, DerivedCache()
            theirs, ours = batch.reference_memo.images["low-pass", 0], batch.image_memo.images[key]
        return replace(
            batch,
            reference=theirs[0],
            reference_memo=theirs[1],
            image=ours[0],
            image_memo=ours[1],
            original=None,
            digests=None,
            references=None,
        )
