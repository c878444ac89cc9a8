"""kl: a convolutional VAE, as used for latent diffusion (Rombach et al., arXiv:2112.10752)."""

from __future__ import annotations

from tokbench.nn.autoencoders import ConvAutoencoder
from tokbench.nn.quantizers.kl import KL
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained


def model(variant: AdapterConfig) -> ConvAutoencoder:
    """Build the untrained model with `channels` values per 8x8 px; `weight` is the weight of the KL divergence."""
    given = dict(variant.config["model"])
    return ConvAutoencoder(KL(given.pop("channels"), weight=given.pop("weight")), **given)


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
