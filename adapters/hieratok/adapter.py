"""hieratok: a KL autoencoder whose decoder uses the latents at several scales (HieraTok, arXiv:2509.23736)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.masks import scale_causal
from tokbench.nn.quantizers.kl import KL
from tokbench.nn.shortcut import PatchShortcut
from tokbench.nn.tokenizer import BottleneckAutoencoder, LearnedTokenizer
from tokbench.nn.vit import GridEncoder, Pixels, Shape, Transformer, random_parameter, sincos_positions
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained


class HieraTok(BottleneckAutoencoder):
    """An autoencoder with one latent per patch and a multi-scale decoder.

    The decoder computes coarser grids of the latents by averaging; with scale-causal attention a token attends to its
    own grid and to coarser ones. Pixels are computed from the finest grid.

    scales: sides of the grids, coarse to fine; with the finest alone it is an ordinary autoencoder. causal: whether
    attention is scale-causal; otherwise all grids attend to each other. linear: see `ConvAutoencoder`.
    """

    mask: Tensor | None

    def __init__(self, shape: Shape, kl: KL, scales: Sequence[int], causal: bool, linear: bool) -> None:
        super().__init__()
        assert scales[-1] == shape.side, "the finest grid must have the size of the latents"
        self.size, self.step, self.tokens = shape.size, shape.patch, shape.patches
        self.scales = list(scales)
        self.encoder, self.bottleneck = GridEncoder(shape, 2 * kl.dim), kl
        self.embed = nn.Linear(kl.dim, shape.width)
        grids = [sincos_positions(side, shape.width, shape.side) + random_parameter(1, shape.width) for side in scales]
        self.positions = nn.Parameter(torch.cat(grids).detach())  # position and scale embeddings in one parameter
        self.body = Transformer(shape.width, shape.depth, shape.heads)
        self.head = Pixels(shape)
        mask = scale_causal(scales) if causal and len(scales) > 1 else None
        self.register_buffer("mask", mask, persistent=False)
        if linear:
            self.add_shortcut(PatchShortcut(kl, self.step, grid=False), self.encoder.head, self.head.linear)

    def encoded(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        side = self.scales[-1]
        grid = vectors.transpose(1, 2).unflatten(2, (side, side))
        pyramid = torch.cat([F.adaptive_avg_pool2d(grid, scale).flatten(2) for scale in self.scales], 2)
        features = self.body(self.embed(pyramid.transpose(1, 2)) + self.positions, self.mask)
        return self.head(features[:, -side * side :])


def model(variant: AdapterConfig) -> HieraTok:
    """Build the untrained model that a TOML file describes."""
    given = variant.config["model"]
    bottleneck = KL(given["channels"], weight=given["weight"])
    return HieraTok(Shape(**given["shape"]), bottleneck, given["scales"], given["causal"], given.get("linear", False))


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
