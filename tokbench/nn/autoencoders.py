"""Whole autoencoders around any bottleneck: convolutions, a transformer over patches, a transformer with queries."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tokbench.nn.conv import WIDTHS, ConvDecoder, ConvEncoder, to_grid, to_places
from tokbench.nn.quantizers.kl import KL
from tokbench.nn.quantizers.quantizer import Quantizer
from tokbench.nn.tokenizer import BottleneckAutoencoder
from tokbench.nn.vit import GridDecoder, GridEncoder, MaskDecoder, Pixels, QueryEncoder, Shape


def entering(bottleneck: Quantizer | KL) -> int:
    """Values at each place that a bottleneck wants: a mean and a log-variance for each of KL's dimensions."""
    return bottleneck.dim * (2 if isinstance(bottleneck, KL) else 1)


class ConvAutoencoder(BottleneckAutoencoder):
    """A token for each 8x8 px (f8) with the default widths, at any size; each width halves the sides once."""

    def __init__(self, bottleneck: Quantizer | KL, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.step = 2 ** len(widths)
        self.encoder, self.bottleneck = ConvEncoder(entering(bottleneck), widths), bottleneck
        self.decoder = ConvDecoder(bottleneck.dim, widths)

    def latents(self, images: Tensor) -> Tensor:
        return to_places(self.encoder(images))

    def pixels(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        return self.decoder(to_grid(vectors))


class GridAutoencoder(BottleneckAutoencoder):
    """A transformer over patches, a token each, at one size."""

    def __init__(self, encoder: Shape, decoder: Shape, bottleneck: Quantizer | KL) -> None:
        super().__init__()
        self.size, self.step, self.tokens = encoder.size, encoder.patch, encoder.patches
        self.encoder, self.bottleneck = GridEncoder(encoder, entering(bottleneck)), bottleneck
        self.decoder = GridDecoder(decoder, bottleneck.dim)

    def latents(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def pixels(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        return self.decoder(vectors)


class QueryAutoencoder(BottleneckAutoencoder):
    """A transformer that puts an image into a row of `count` tokens, and one that paints it from them (TiTok)."""

    def __init__(self, shape: Shape, count: int, bottleneck: Quantizer | KL, mask: Tensor | None = None) -> None:
        super().__init__()
        self.size, self.step, self.tokens = shape.size, shape.patch, count
        self.encoder = QueryEncoder(shape, count, entering(bottleneck), mask)
        self.bottleneck = bottleneck
        self.decoder, self.head = MaskDecoder(shape, count, bottleneck.dim), Pixels(shape)

    def latents(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def pixels(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """The first of the row's vectors will do: (B, k, D) with any k up to `count`."""
        return self.head(self.decoder(vectors))
