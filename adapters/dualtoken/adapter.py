"""dualtoken: two residual codebooks at two depths of one encoder (Song et al., DualToken, arXiv:2503.14324)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tokbench.nn.conv import ConvDecoder, channels_first
from tokbench.nn.quantizers.product import Product
from tokbench.nn.quantizers.quantizer import Quantizer
from tokbench.nn.quantizers.residual import ResidualVQ
from tokbench.nn.semantic import DualAutoencoder
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.vit import Patches, Shape, Transformer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained

EARLIER = 0.6
"""Weight of the features one block before the tap of the pixel branch."""


class DualToken(DualAutoencoder):
    """A vision transformer whose features after `tap` blocks become pixel codes, and those after all semantic codes.

    Without separate codebooks (`pixel` 0), the features after all blocks become the codes from which both the image and
    the teacher's features are decoded. widths, stem: see `ConvDecoder`.
    """

    def __init__(
        self,
        shape: Shape,
        quantizer: Quantizer,
        pixel: int,
        semantic: float,
        tap: int,
        widths: Sequence[int],
        stem: int,
    ) -> None:
        super().__init__(quantizer, shape.side, shape.patch, pixel or quantizer.dim, semantic, depth=1)
        assert 2 <= tap <= shape.depth, "the pixel branch taps the features of two consecutive blocks"
        self.tap = tap
        self.patches, self.body = Patches(shape), Transformer(shape.width, shape.depth, shape.heads)
        self.head = nn.Linear(shape.width, quantizer.dim - pixel)
        self.decoder = ConvDecoder(self.pixel_dim, widths, stem)
        heads: list[nn.Module] = [self.head]
        if self.split:
            self.pixel_norms = nn.ModuleList(nn.LayerNorm(shape.width) for _ in range(2))
            self.pixel_heads = nn.ModuleList(nn.Linear(shape.width, pixel) for _ in range(2))
            heads = [*self.pixel_heads]
        assert self.shortcut is not None
        self.add_shortcut(self.shortcut, *heads, self.decoder.head[-1])

    def encoded(self, images: Tensor) -> Tensor:
        x, states = self.patches(images), []
        for block in self.body.blocks:
            x = block(x)
            states.append(x)
        deep = self.head(self.body.norm(x))
        if not self.split:
            return deep
        taps = states[self.tap - 1], states[self.tap - 2]
        last, earlier = (
            head(norm(state)) for head, norm, state in zip(self.pixel_heads, self.pixel_norms, taps, strict=True)
        )
        return torch.cat([last + EARLIER * earlier, deep], 2)

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        return self.decoder(channels_first(self.pixel_part(vectors).unflatten(1, (self.side, self.side))))


def model(variant: AdapterConfig) -> DualToken:
    """Build the untrained model: `branches` residual quantizers, two or one, as the TOML's `quantizer` describes."""
    given = dict(variant.config["model"])
    options, branches = given.pop("quantizer"), given.pop("branches")
    assert branches in (1, 2), "there is one quantizer for both tasks, or one for each"
    shape, parts = Shape(**given.pop("shape")), [ResidualVQ(**options) for _ in range(branches)]
    if branches == 1:
        return DualToken(shape, parts[0], 0, **given)
    return DualToken(shape, Product(parts), options["dim"], **given)


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
