"""The model: an encoder with a bottleneck that only the reconstruction uses, and a pixel decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.errors import DataError
from tokbench.nn.augment import random_resized_crop
from tokbench.nn.quantizers.bottleneck import Deterministic
from tokbench.nn.shortcut import PatchShortcut
from tokbench.nn.tokenizer import BottleneckAutoencoder
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import GridDecoder, Patches, Shape, Transformer, initialise, random_parameter

from .pretraining import Contrastive, SelfDistillation


class Encoder(nn.Module):
    """A vision transformer with a CLS token and a mask token, for square images of at most `size` px."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape, self.patches = shape, Patches(shape)
        self.cls, self.mask_token = random_parameter(1, shape.width), random_parameter(shape.width)
        self.body = Transformer(shape.width, shape.depth, shape.heads)

    def forward(self, images: Tensor, masked: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map images (B, 3, H, H) to the features of CLS (B, width) and of the patches (B, N, width).

        Patches where `masked` (B, N) is True are replaced by the mask token. The position embeddings of smaller images
        are interpolated.
        """
        patches = self.patches.embed(images).flatten(2).transpose(1, 2)
        if masked is not None:
            patches = torch.where(masked[..., None], self.mask_token.to(patches), patches)
        x = torch.cat([self.cls.expand(len(images), 1, -1), patches + self.positions(images.shape[-1])], 1)
        x = self.body(x)
        return x[:, 0], x[:, 1:]

    def positions(self, size: int) -> Tensor:
        """Return the position embeddings (N, width) for images of `size` px."""
        own = self.patches.positions
        if size == self.shape.size:
            return own
        grid = own.unflatten(0, (self.shape.side, self.shape.side)).permute(2, 0, 1)[None]
        side = size // self.shape.patch
        return F.interpolate(grid, (side, side), mode="bilinear", align_corners=False)[0].flatten(1).T


class VTP(BottleneckAutoencoder):
    """An autoencoder whose encoder is trained by reconstruction, contrast with captions and self-distillation at once.

    Captions and self-distillation see the full width of the features; the bottleneck, a linear map without a bias, is
    only used by the reconstruction.

    contrast, distillation: weights of the two other losses; 0 for the ablations.
    """

    kept_out = ("contrastive.", "teacher.")

    def __init__(self, encoder: Shape, decoder: Shape, channels: int, contrast: float, distillation: float) -> None:
        super().__init__()
        self.size, self.step, self.tokens = encoder.size, encoder.patch, encoder.patches
        self.contrast, self.distillation = contrast, distillation
        self.encoder, self.bottleneck = Encoder(encoder), Deterministic(channels)
        self.down = nn.Linear(encoder.width, channels, bias=False).apply(initialise)
        self.decoder = GridDecoder(decoder, channels)
        shortcut = PatchShortcut(self.bottleneck, self.step, grid=False)
        self.add_shortcut(shortcut, self.down, self.decoder.pixels.linear)

    def ready(self, device: str) -> None:
        super().ready(device)
        width = self.down.in_features
        if self.contrast:
            self.contrastive = Contrastive(width).to(device)
        if self.distillation:
            self.teacher = SelfDistillation(self.encoder, width).to(device)

    def encoded(self, images: Tensor) -> Tensor:
        return self.down(self.encoder(images)[1])

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        return self.decoder(vectors)

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        assert self.shortcut is not None
        cls, patches = self.encoder(batch.images)
        vectors, _ = self.squeeze(self.down(patches) + self.shortcut.latents(batch.images))
        terms = self.compare(self.pixels(vectors), batch.images, progress)
        if self.contrast:
            if batch.captions is None:
                raise DataError("training with contrast needs captions, and this dataset has none")
            terms["contrast"] = self.contrast * self.contrastive(cls, batch.captions)
        if self.distillation:
            images, half = batch.images, self.encoder.shape.size // 2
            wide = torch.cat([random_resized_crop(images, 0.4) for _ in range(2)])
            narrow = torch.cat([random_resized_crop(images, 0.1, 0.4, half) for _ in range(2)])
            terms["distillation"] = self.distillation * self.teacher(self.encoder, wide, narrow, progress)
        return terms
