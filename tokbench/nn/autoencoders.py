"""Autoencoders around any bottleneck: convolutional, transformer over patches, and transformer with queries."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tokbench.nn.conv import WIDTHS, ConvDecoder, ConvEncoder, channels_first, channels_last
from tokbench.nn.quantizers.kl import KL
from tokbench.nn.quantizers.quantizer import Quantizer
from tokbench.nn.tokenizer import BottleneckAutoencoder
from tokbench.nn.vit import GridDecoder, GridEncoder, MaskDecoder, Pixels, QueryEncoder, Shape


def bottleneck_channels(bottleneck: Quantizer | KL) -> int:
    """Return the number of channels that enter a bottleneck; KL takes a mean and a log-variance per dimension."""
    return bottleneck.dim * (2 if isinstance(bottleneck, KL) else 1)


class ConvAutoencoder(BottleneckAutoencoder):
    """A convolutional autoencoder with one token per 8x8 px (f8) at the default `widths`.

    Each width is one stage that halves both sides. Images may have any size whose sides are multiples of `step`.
    """

    def __init__(self, bottleneck: Quantizer | KL, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.step = 2 ** len(widths)
        self.encoder, self.bottleneck = ConvEncoder(bottleneck_channels(bottleneck), widths), bottleneck
        self.decoder = ConvDecoder(bottleneck.dim, widths)

    def latents(self, images: Tensor) -> Tensor:
        return channels_last(self.encoder(images))

    def pixels(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        return self.decoder(channels_first(vectors))


class GridAutoencoder(BottleneckAutoencoder):
    """A transformer autoencoder with one token per patch, for images of one size."""

    def __init__(self, encoder: Shape, decoder: Shape, bottleneck: Quantizer | KL) -> None:
        super().__init__()
        self.size, self.step, self.tokens = encoder.size, encoder.patch, encoder.patches
        self.encoder, self.bottleneck = GridEncoder(encoder, bottleneck_channels(bottleneck)), bottleneck
        self.decoder = GridDecoder(decoder, bottleneck.dim)

    def latents(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def pixels(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        return self.decoder(vectors)


class QueryAutoencoder(BottleneckAutoencoder):
    """A 1D autoencoder (TiTok, arXiv:2406.07550): one transformer encodes an image into a sequence of `count` tokens,
    a second one decodes the image from them.

    mask: attention mask of the encoder over patches and then queries, as in `tokbench.nn.masks`.
    """

    def __init__(self, shape: Shape, count: int, bottleneck: Quantizer | KL, mask: Tensor | None = None) -> None:
        super().__init__()
        self.size, self.step, self.tokens = shape.size, shape.patch, count
        self.encoder = QueryEncoder(shape, count, bottleneck_channels(bottleneck), mask)
        self.bottleneck = bottleneck
        self.decoder, self.head = MaskDecoder(shape, count, bottleneck.dim), Pixels(shape)

    def latents(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def pixels(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Decode the first k vectors (B, k, D), 1 <= k <= `count`, to images (B, 3, H, W)."""
        return self.head(self.decoder(vectors))
