"""titok: an image as a short 1D token sequence (Yu et al., An Image is Worth 32 Tokens, arXiv:2406.07550)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from tokbench.errors import AdapterError
from tokbench.nn.autoencoders import GridAutoencoder, QueryAutoencoder
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.shortcut import PatchShortcut
from tokbench.nn.tokenizer import BottleneckAutoencoder, LearnedTokenizer
from tokbench.nn.vit import GridDecoder, GridEncoder, Shape
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained


class PooledAutoencoder(BottleneckAutoencoder):
    """An autoencoder whose tokens are a grid of averages of the patches' features.

    Both transformers process all patches, so that they compute about as much as those of a 1D tokenizer with the same
    `shape`, which process the patches and the tokens. count: number of tokens. linear: see `ConvAutoencoder`. Raises
    AdapterError if `count` tokens do not form a square grid that divides the grid of patches.
    """

    def __init__(self, shape: Shape, count: int, quantizer: VectorQuantizer, linear: bool) -> None:
        super().__init__()
        side = math.isqrt(count)
        if side * side != count or shape.side % side:
            raise AdapterError(f"{shape.patches} patches cannot be averaged to a square grid of {count} tokens")
        self.size, self.step, self.tokens, self.side, self.shape = shape.size, shape.patch, count, side, shape
        self.encoder, self.bottleneck = GridEncoder(shape, quantizer.dim), quantizer
        self.decoder = GridDecoder(shape, quantizer.dim)
        if linear:
            shortcut = PatchShortcut(quantizer, shape.size // side, grid=False)
            self.add_shortcut(shortcut, self.encoder.head, self.decoder.pixels.linear)

    def encoded(self, images: Tensor) -> Tensor:
        grid = self.encoder(images).transpose(1, 2).unflatten(2, (self.shape.side, self.shape.side))
        return F.adaptive_avg_pool2d(grid, self.side).flatten(2).transpose(1, 2)

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        grid = vectors.transpose(1, 2).unflatten(2, (self.side, self.side))
        repeated = F.interpolate(grid, size=self.shape.side, mode="nearest")
        return self.decoder(repeated.flatten(2).transpose(1, 2))


def model(variant: AdapterConfig) -> BottleneckAutoencoder:
    """Build the untrained model.

    `kind` "row" has `tokens` learned queries; "grid" is the ablation with as many patches, each of which is a token;
    "pooled" is an ablation whose tokens are averages over squares of patches. Raises AdapterError if the grid does not
    have `tokens` tokens.
    """
    given = variant.config["model"]
    quantizer = VectorQuantizer(**given["quantizer"])
    shape, linear = Shape(**given["shape"]), given.get("linear", False)
    if given["kind"] == "row":
        return QueryAutoencoder(shape, given["tokens"], quantizer, linear=linear)
    if given["kind"] == "pooled":
        return PooledAutoencoder(shape, given["tokens"], quantizer, linear)
    if given["kind"] != "grid" or shape.patches != given["tokens"]:
        raise AdapterError(f"{variant.name}: a grid of {shape.patches} patches does not give {given['tokens']} tokens")
    return GridAutoencoder(shape, shape, quantizer, linear)


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
