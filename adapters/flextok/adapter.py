"""flextok: 1D tokens of variable number with a flow decoder (Bachmann et al., FlexTok, arXiv:2502.13967)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tokbench.nn.autoencoders import ConvAutoencoder
from tokbench.nn.flow import FlowDecoder, add_noise, logit_normal
from tokbench.nn.masks import causal_queries
from tokbench.nn.nested_dropout import nested_keep, prefix
from tokbench.nn.quantizers.fsq import FSQ
from tokbench.nn.tokenizer import BottleneckAutoencoder, LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import Places, QueryEncoder, Shape
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import base, load_trained

UNGUIDED = 0.1
"""Share of the images whose tokens are all dropped in training, for classifier-free guidance."""


class FlexTok(BottleneckAutoencoder):
    """FSQ-quantized register tokens over the latents of a frozen autoencoder, and a rectified flow back to the latents.

    Registers attend to each other causally, and in training the last registers of each image are dropped (nested
    dropout), so that the first k tokens are a shorter representation of the image.

    around: the frozen autoencoder. count: number of tokens. levels: of FSQ. nested: whether nested dropout is used;
    False is the ablation. steps, guidance: number of Euler steps and guidance scale of decoding.
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
        self.register_buffer("deviation", torch.zeros(channels))  # 0 until measured on the first batch

    def standardised_latents(self, images: Tensor) -> Tensor:
        """Return the autoencoder's latents (B, N, C), standardised per channel by the first batch."""
        around = self.bases["autoencoder"]
        assert isinstance(around, ConvAutoencoder)
        with torch.no_grad():
            latents = around.squeeze(around.latents(images))[0].flatten(1, 2)
            if not self.deviation.any():
                self.mean.copy_(latents.mean((0, 1)))
                self.deviation.copy_(latents.std((0, 1)))
        return (latents - self.mean) / self.deviation

    def encoded(self, images: Tensor) -> Tensor:
        return self.encoder(self.standardised_latents(images))

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        target = self.standardised_latents(batch.images)
        vectors, own = self.squeeze(self.encoder(target))
        count, images = vectors.shape[1], len(vectors)
        kept = nested_keep(images, count) if self.nested else torch.full((images,), count)
        kept = torch.where(torch.rand(images) < UNGUIDED, 0, kept).to(target.device)
        time = logit_normal(images, target.device)
        x, velocity = add_noise(target, time)
        predicted = self.decoder(x, time, vectors, prefix(kept, count))
        return {"flow": (predicted.float() - velocity).square().mean(), "bottleneck": own}

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Decode the first k vectors (B, k, D) to images (B, 3, H, W); the other tokens count as dropped."""
        assert seeds is not None, "a flow decoder needs seeds"
        around, count = self.bases["autoencoder"], self.tokens
        assert isinstance(around, ConvAutoencoder)
        assert count is not None
        padded = torch.nn.functional.pad(vectors, (0, 0, 0, count - vectors.shape[1]))
        keep = prefix(torch.full((len(vectors),), vectors.shape[1], device=vectors.device), count)
        latents = self.decoder.sample(padded, seeds, self.steps, self.guidance, keep)
        side = round(latents.shape[1] ** 0.5)
        return around.pixels((latents * self.deviation + self.mean).unflatten(1, (side, side)))


def model(variant: AdapterConfig) -> FlexTok:
    """Build the untrained model. Raises MissingWeights if the underlying autoencoder is not trained."""
    given = variant.config["model"]
    around = base(variant, ConvAutoencoder)
    keys = ("levels", "nested", "steps", "guidance")
    return FlexTok(around, Shape(**given["shape"]), given["tokens"], *(given[key] for key in keys))


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it or its autoencoder is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)), prefixes=True)
