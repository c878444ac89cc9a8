"""hieratok: a KL autoencoder whose decoder sees its latents at several scales (HieraTok, arXiv:2509.23736)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.masks import scale_causal
from tokbench.nn.quantizers.kl import KL
from tokbench.nn.tokenizer import BottleneckAutoencoder, LearnedTokenizer
from tokbench.nn.vit import GridEncoder, Pixels, Shape, Transformer, learned, placed
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained


class HieraTok(BottleneckAutoencoder):
    """One latent a patch is all that is stored; the decoder makes coarser grids of them by averaging, and lets every
    token see its own and the coarser grids. Pixels come from the finest one.

    `scales`: sides of the grids, coarse to fine; the finest alone is the ordinary autoencoder. `causal`: else all grids
    see one another.
    """

    mask: Tensor | None

    def __init__(self, shape: Shape, kl: KL, scales: Sequence[int], causal: bool) -> None:
        super().__init__()
        assert scales[-1] == shape.side, "the finest grid is that of the latents"
        self.size, self.step, self.tokens = shape.size, shape.patch, shape.patches
        self.scales = list(scales)
        self.encoder, self.bottleneck = GridEncoder(shape, 2 * kl.dim), kl
        self.embed = nn.Linear(kl.dim, shape.width)
        grids = [placed(side, shape.width, shape.side) + learned(1, shape.width) for side in scales]
        self.positions = nn.Parameter(torch.cat(grids).detach())  # of places and scales in one
        self.body = Transformer(shape.width, shape.depth, shape.heads)
        self.head = Pixels(shape)
        mask = scale_causal(scales) if causal and len(scales) > 1 else None
        self.register_buffer("mask", mask, persistent=False)

    def latents(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def pixels(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        side = self.scales[-1]
        grid = vectors.transpose(1, 2).unflatten(2, (side, side))
        pyramid = torch.cat([F.adaptive_avg_pool2d(grid, scale).flatten(2) for scale in self.scales], 2)
        features = self.body(self.embed(pyramid.transpose(1, 2)) + self.positions, self.mask)
        return self.head(features[:, -side * side :])


def model(variant: AdapterConfig) -> HieraTok:
    given = variant.config["model"]
    bottleneck = KL(given["channels"], weight=given["weight"])
    return HieraTok(Shape(**given["shape"]), bottleneck, given["scales"], given["causal"])


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Raises MissingWeights where it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
