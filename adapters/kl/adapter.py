"""kl: a convolutional autoencoder with a Gaussian bottleneck, as the VAEs of latent diffusion (arXiv:2112.10752)."""

from __future__ import annotations

from tokbench.nn.autoencoders import ConvAutoencoder
from tokbench.nn.quantizers.kl import KL
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained


def model(variant: AdapterConfig) -> ConvAutoencoder:
    """`channels` values for each 8x8 px, `weight` of the divergence from a standard normal distribution."""
    given = variant.config["model"]
    return ConvAutoencoder(KL(given["channels"], weight=given["weight"]))


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Raises MissingWeights where it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
