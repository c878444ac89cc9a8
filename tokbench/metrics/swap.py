"""How much of an image's colours its holistic tokens carry, measured by swapping them between images."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
import torch

from tokbench.errors import NotApplicable
from tokbench.metrics.base import PerImageMetric
from tokbench.metrics.batch import Batch
from tokbench.tokenizers.base import ImageModel, Tokenizer
from tokbench.tokenizers.tokens import Tokens

LEVELS = 32
"""Number of bins of each channel's histogram."""

_BATCH = 64

_HISTOGRAM, _TOKENS = "histogram", "tokens"


class Swap(PerImageMetric):
    """`holistic_transfer`: how far an image's colours move towards those of another one, as a share of the way, if its
    holistic tokens are replaced by those of the other one (Hita, arXiv:2507.02358; the measure is tokbench's).

    The other image is the next one in the dataset's order, for the last image the first. With the distance d between
    the colour histograms (Wasserstein-1, mean over the channels) of the image with swapped tokens and the two
    reconstructions, the share is d(own) / (d(own) + d(other)): 0 if the local tokens determine the colours, 1 if the
    holistic ones do. Images whose reconstruction has the same histogram as the other one's do not count.
    """

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __init__(self, model: ImageModel, device: str) -> None:
        super().__init__()
        self._model, self._device = model, device
        self._shares: np.ndarray | None = None

    def update(self, batch: Batch) -> None:
        self._shares = None
        super().update(batch)

    def merge(self, other: Self) -> None:
        self._shares = None
        super().merge(other)

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        """Return the indices and the colour histogram of each image.

        Raises NotApplicable if the tokenizer has no holistic tokens, or if the image was cut into tiles.
        """
        tokens: Tokens = batch.require("tokens")
        image = batch.require("image")
        if not isinstance(self._model, Tokenizer):
            raise NotApplicable("only the tokens of a tokenizer can be swapped between images")
        size = self._model.spec.size
        if size is not None and tuple(image.shape[2:]) != (size, size):
            raise NotApplicable(f"images of {image.shape[3]}x{image.shape[2]} px are cut into tiles of {size} px")
        self._model.swap(tokens, tokens)
        return {_TOKENS: tokens.tensor.cpu().numpy(), _HISTOGRAM: histograms(image)}

    def per_image(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        if len(self.rows) < 2:
            return {}
        if self._shares is None:  # decoding all images once more takes time, and several callers ask for the values
            self._shares = self._decoded_shares()
        return {"holistic_transfer": (self.rows.index(_TOKENS), self._shares)}

    @torch.inference_mode()
    def _decoded_shares(self) -> np.ndarray:
        """Return the share of each image (n,), NaN where it is not defined."""
        model = self._model
        assert isinstance(model, Tokenizer)
        data, own = torch.from_numpy(self.rows.column(_TOKENS)), self.rows.column(_HISTOGRAM)
        found, (low, high) = [], model.spec.range
        for part in torch.arange(len(data)).split(_BATCH):
            first, second = (self._tokens(data[at]) for at in (part, (part + 1) % len(data)))
            decoded = model.decode(model.swap(first, second), part.tolist())
            found.append(histograms((decoded - low) / (high - low)))
        swapped = np.concatenate(found)
        near, far = distance(swapped, own), distance(swapped, np.roll(own, -1, axis=0))
        apart = distance(own, np.roll(own, -1, axis=0)) > 0
        return np.where(apart, near / np.maximum(near + far, 1e-12), np.nan)

    def _tokens(self, data: torch.Tensor) -> Tokens:
        spec = self._model.spec
        return Tokens.from_indices(data.to(self._device), next(iter(spec.codebook.values())), groups=spec.groups or 1)


def histograms(images: torch.Tensor) -> np.ndarray:
    """Return the cumulative histogram of each channel of images (B, 3, H, W) in [0, 1], float32 (B, 3, LEVELS)."""
    bins = (images.float().clamp(0, 1) * LEVELS).long().clamp(max=LEVELS - 1).flatten(2).cpu()
    counts = torch.zeros(*bins.shape[:2], LEVELS).scatter_add_(2, bins, torch.ones(bins.shape))
    return (counts.cumsum(2) / bins.shape[2]).numpy()


def distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the Wasserstein-1 distance (B,) of cumulative histograms (B, 3, LEVELS), mean over channels, in [0, 1]."""
    return np.asarray(np.abs(first - second).mean((1, 2)))
