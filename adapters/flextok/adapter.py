"""flextok: a row of any length, painted by a flow decoder (Bachmann et al., FlexTok, arXiv:2502.13967)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tokbench.nn.autoencoders import ConvAutoencoder
from tokbench.nn.flow import FlowDecoder, logit_normal, noised
from tokbench.nn.masks import causal_queries
from tokbench.nn.nested_dropout import nested_keep, prefix
from tokbench.nn.quantizers.fsq import FSQ
from tokbench.nn.tokenizer import BottleneckAutoencoder, LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import Places, QueryEncoder, Shape
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import base, load_trained

UNGUIDED = 0.1
"""Share of the images whose tokens are all dropped in training, for guidance."""


class FlexTok(BottleneckAutoencoder):
    """Register tokens over the latents of a frozen autoencoder, FSQ, and a rectified flow back to those latents.

    The registers look at one another causally, and each image's last ones are dropped in training (nested dropout), so
    the first k of them are a shorter description of the same image.
    """

    perceptual = 0.0
    mean: Tensor
    deviation: Tensor

    def __init__(
        self, around: ConvAutoencoder, shape: Shape, count: int, levels: Sequence[int], nested: bool, steps: int,
        guidance: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.size, self.tokens = shape.size, count
        self.bases = {"autoencoder": around}
        self.nested, self.steps, self.guidance = nested, steps, guidance
        channels, self.bottleneck = around.bottleneck.dim, FSQ(levels)
        self.encoder = QueryEncoder(
            shape, count, self.bottleneck.dim, causal_queries(shape.patches, count), Places(channels, shape)
        )
        self.decoder = FlowDecoder(
            shape.patches, channels, count, self.bottleneck.dim, shape.width, shape.depth, shape.heads
        )
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.zeros(channels))  # 0 until the first batch says what it is

    def described(self, images: Tensor) -> Tensor:
        """The autoencoder's latents (B, N, C), each channel with mean 0 and deviation 1 over the first batch."""
        around = self.bases["autoencoder"]
        assert isinstance(around, ConvAutoencoder)
        with torch.no_grad():
            latents = around.squeeze(around.latents(images))[0].flatten(1, 2)
            if not self.deviation.any():
                self.mean.copy_(latents.mean((0, 1)))
                self.deviation.copy_(latents.std((0, 1)))
        return (latents - self.mean) / self.deviation

    def latents(self, images: Tensor) -> Tensor:
        return self.encoder(self.described(images))

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        target = self.described(batch.images)
        vectors, own = self.squeeze(self.encoder(target))
        count, images = vectors.shape[1], len(vectors)
        kept = nested_keep(images, count) if self.nested else torch.full((images,), count)
        kept = torch.where(torch.rand(images) < UNGUIDED, 0, kept).to(target.device)
        time = logit_normal(images, target.device)
        x, velocity = noised(target, time)
        found = self.decoder(x, time, vectors, prefix(kept, count))
        return {"flow": (found.float() - velocity).square().mean(), "bottleneck": own}

    def pixels(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """The first k vectors (B, k, D): the others count as dropped."""
        assert seeds is not None, "a flow decoder needs seeds"
        around, count = self.bases["autoencoder"], self.tokens
        assert isinstance(around, ConvAutoencoder)
        assert count is not None
        whole = torch.nn.functional.pad(vectors, (0, 0, 0, count - vectors.shape[1]))
        keep = prefix(torch.full((len(vectors),), vectors.shape[1], device=vectors.device), count)
        latents = self.decoder.sample(whole, seeds, self.steps, self.guidance, keep)
        side = round(latents.shape[1] ** 0.5)
        return around.pixels((latents * self.deviation + self.mean).unflatten(1, (side, side)))


def model(variant: AdapterConfig) -> FlexTok:
    """Raises MissingWeights where the autoencoder below is not trained."""
    given = variant.config["model"]
    around = base(variant, ConvAutoencoder)
    keys = ("levels", "nested", "steps", "guidance")
    return FlexTok(around, Shape(**given["shape"]), given["tokens"], *(given[key] for key in keys))


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Raises MissingWeights where it, or the autoencoder below, is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)), prefixes=True)
