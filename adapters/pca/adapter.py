"""pca: principal components of 8x8 patches, the best linear autoencoder and the baseline of all trained ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.trainable import FittedModel
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens
from tokbench.training.zoo import load_trained

PATCH = 8


class Components(FittedModel):
    """The mean patch (192,) and the first `count` principal directions of patches, (count, 192), orthonormal."""

    mean: Tensor
    directions: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.register_buffer("mean", torch.zeros(3 * PATCH**2))
        self.register_buffer("directions", torch.zeros(count, 3 * PATCH**2))

    @torch.no_grad()
    def fit(self, images: Iterator[Tensor]) -> None:
        count, width = 0, 3 * PATCH**2
        total, products = torch.zeros(width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64)
        for batch in images:
            patches = F.unfold(batch, PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1).double().cpu()
            count += len(patches)
            total += patches.sum(0)
            products += patches.T @ patches
        mean = total / count
        _, vectors = torch.linalg.eigh(products / count - mean[:, None] * mean)
        self.mean.copy_(mean)
        self.directions.copy_(vectors.flip(1)[:, : self.count].T)


class PCA(Tokenizer):
    """A tokenizer whose tokens are the projections of each patch on the components, as float16."""

    def __init__(self, name: str, components: Components) -> None:
        self.components = self.module = components
        self.spec = TokenizerSpec(
            name,
            kind="continuous",
            range=(-1.0, 1.0),
            multiple=PATCH,
            downsample=PATCH,
            bits_per_token=16 * components.count,
        )

    def encode(self, images: Tensor) -> Tokens:
        """Encode (B, 3, H, W) in [-1, 1] to projections (B, H / 8, W / 8, count)."""
        rows, columns = images.shape[2] // PATCH, images.shape[3] // PATCH
        patches = F.unfold(images, PATCH, stride=PATCH).transpose(1, 2)
        projections = (patches - self.components.mean) @ self.components.directions.T
        return Tokens.from_latents(projections.unflatten(1, (rows, columns)), tokens=rows * columns)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        projections = tokens.tensor.float()
        height, width = projections.shape[1] * PATCH, projections.shape[2] * PATCH
        patches = projections.flatten(1, 2) @ self.components.directions + self.components.mean
        return F.fold(patches.transpose(1, 2), (height, width), PATCH, stride=PATCH)


def model(variant: AdapterConfig) -> Components:
    """Build the model before fitting, with `components` directions."""
    return Components(variant.config["model"]["components"])


def load(variant: AdapterConfig, device: str) -> PCA:
    """Load the fitted tokenizer. Raises MissingWeights if it is not fitted."""
    components: nn.Module = load_trained(variant, model(variant))
    assert isinstance(components, Components)
    return PCA(variant.name, components)
