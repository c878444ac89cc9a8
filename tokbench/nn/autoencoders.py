"""Autoencoders around any bottleneck: convolutional, transformer over patches, and transformer with queries."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tokbench.nn.conv import WIDTHS, ConvDecoder, ConvEncoder, channels_first, channels_last, downsampling
from tokbench.nn.quantizers.bottleneck import Bottleneck
from tokbench.nn.quantizers.kl import KL
from tokbench.nn.shortcut import ImageShortcut, PatchShortcut
from tokbench.nn.tokenizer import BottleneckAutoencoder
from tokbench.nn.vit import GridDecoder, GridEncoder, MaskDecoder, Pixels, QueryEncoder, Shape


def bottleneck_channels(bottleneck: Bottleneck) -> int:
    """Return the number of channels that enter a bottleneck; KL takes a mean and a log-variance per dimension."""
    return bottleneck.dim * (2 if isinstance(bottleneck, KL) else 1)


class ConvAutoencoder(BottleneckAutoencoder):
    """A convolutional autoencoder with one token per 8x8 px (f8) at the default `widths` and `stem`.

    Images may have any size whose sides are multiples of `step`. stem: see `ConvEncoder`. linear: whether linear maps,
    fitted by PCA before the training, are added to the networks.
    """

    def __init__(
        self, bottleneck: Bottleneck, widths: Sequence[int] = WIDTHS, stem: int = 2, linear: bool = False
    ) -> None:
        super().__init__()
        self.step = downsampling(widths, stem)
        self.encoder, self.bottleneck = ConvEncoder(bottleneck_channels(bottleneck), widths, stem), bottleneck
        self.decoder = ConvDecoder(bottleneck.dim, widths, stem)
        if linear:
            shortcut = PatchShortcut(bottleneck, self.step, grid=True)
            self.add_shortcut(shortcut, self.encoder.head[-1], self.decoder.head[-1])

    def encoded(self, images: Tensor) -> Tensor:
        return channels_last(self.encoder(images))

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        return self.decoder(channels_first(vectors))


class GridAutoencoder(BottleneckAutoencoder):
    """A transformer autoencoder with one token per patch, for images of one size. linear: see `ConvAutoencoder`."""

    def __init__(self, encoder: Shape, decoder: Shape, bottleneck: Bottleneck, linear: bool = False) -> None:
        super().__init__()
        self.size, self.step, self.tokens = encoder.size, encoder.patch, encoder.patches
        self.encoder, self.bottleneck = GridEncoder(encoder, bottleneck_channels(bottleneck)), bottleneck
        self.decoder = GridDecoder(decoder, bottleneck.dim)
        if linear:
            shortcut = PatchShortcut(bottleneck, self.step, grid=False)
            self.add_shortcut(shortcut, self.encoder.head, self.decoder.pixels.linear)

    def encoded(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        return self.decoder(vectors)


class QueryAutoencoder(BottleneckAutoencoder):
    """A 1D autoencoder (TiTok, arXiv:2406.07550): one transformer encodes an image into a sequence of `count` tokens,
    a second one decodes the image from them.

    mask: attention mask of the encoder over patches and then queries, as in `tokbench.nn.masks`. linear: whether linear
    maps between images and tokens, fitted by PCA before the training, are added to the networks.
    """

    def __init__(
        self,
        shape: Shape,
        count: int,
        bottleneck: Bottleneck,
        mask: Tensor | None = None,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.step, self.tokens = shape.size, shape.patch, count
        self.encoder = QueryEncoder(shape, count, bottleneck_channels(bottleneck), mask)
        self.bottleneck = bottleneck
        self.decoder, self.head = MaskDecoder(shape, count, bottleneck.dim), Pixels(shape)
        if linear:
            shortcut = ImageShortcut(bottleneck, count, shape.size)
            self.add_shortcut(shortcut, self.encoder.head, self.head.linear)

    def encoded(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Decode the first k vectors (B, k, D), 1 <= k <= `count`, to images (B, 3, H, W)."""
        return self.head(self.decoder(vectors))
