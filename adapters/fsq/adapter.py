"""fsq: the convolutional autoencoder with finite scalar quantization (Mentzer et al., arXiv:2309.15505)."""

from __future__ import annotations

from tokbench.nn.autoencoders import ConvAutoencoder
from tokbench.nn.quantizers.fsq import FSQ
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained


def model(variant: AdapterConfig) -> ConvAutoencoder:
    """One of the product of `levels` codes for each 8x8 px."""
    return ConvAutoencoder(FSQ(variant.config["model"]["levels"]))


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Raises MissingWeights where it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
