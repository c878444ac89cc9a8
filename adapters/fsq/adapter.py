"""fsq: a convolutional autoencoder with finite scalar quantization (Mentzer et al., arXiv:2309.15505)."""

from __future__ import annotations

from tokbench.nn.autoencoders import ConvAutoencoder
from tokbench.nn.quantizers.fsq import FSQ
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained


def model(variant: AdapterConfig) -> ConvAutoencoder:
    """Build the untrained model; each 8x8 px become one of prod(`levels`) codes."""
    given = dict(variant.config["model"])
    return ConvAutoencoder(FSQ(given.pop("levels")), **given)


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
