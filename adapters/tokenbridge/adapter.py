"""tokenbridge: post-training quantization of a continuous tokenizer (Wang et al., TokenBridge, arXiv:2503.16430)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tokbench.nn.autoencoders import ConvAutoencoder
from tokbench.nn.quantizers.gaussian_bins import GaussianBins
from tokbench.nn.tokenizer import BottleneckAutoencoder, LearnedTokenizer
from tokbench.nn.trainable import FittedModel
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import base, load_trained


class TokenBridge(BottleneckAutoencoder, FittedModel):
    """A KL autoencoder whose standardised latents are each quantized to one of 2^bits values.

    Nothing is trained; the mean and the standard deviation of all latents are measured on the training images.
    uniform: bins of equal width instead of equal probability.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, around: ConvAutoencoder, bits: int, uniform: bool) -> None:
        super().__init__()
        self.bases = {"autoencoder": around}
        self.bottleneck = GaussianBins(bits, around.bottleneck.dim, uniform=uniform)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))

    def _around(self) -> ConvAutoencoder:
        around = self.bases["autoencoder"]
        assert isinstance(around, ConvAutoencoder)
        return around

    def _continuous(self, images: Tensor) -> Tensor:
        around = self._around()
        return around.squeeze(around.latents(images))[0]

    @torch.no_grad()
    def fit(self, images: Iterator[Tensor]) -> None:
        count, total, squares = 0, 0.0, 0.0
        for batch in images:
            latents = self._continuous(batch).double()
            count += latents.numel()
            total += float(latents.sum())
            squares += float(latents.square().sum())
        self.mean.fill_(total / count)
        self.deviation.fill_((squares / count - (total / count) ** 2) ** 0.5)

    def encoded(self, images: Tensor) -> Tensor:
        return (self._continuous(images) - self.mean) / self.deviation

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        return self._around().pixels(vectors * self.deviation + self.mean)


def model(variant: AdapterConfig) -> TokenBridge:
    """Build the model before fitting. Raises MissingWeights if the underlying autoencoder is not trained."""
    given = variant.config["model"]
    return TokenBridge(base(variant, ConvAutoencoder), given["bits"], given["uniform"])


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the fitted tokenizer. Raises MissingWeights if it is not fitted or its autoencoder not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
