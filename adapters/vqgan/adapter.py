"""vqgan: a convolutional autoencoder with a codebook (Esser et al., arXiv:2012.09841)."""

from __future__ import annotations

from tokbench.nn.autoencoders import ConvAutoencoder
from tokbench.nn.conv import WIDTHS
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained


def model(variant: AdapterConfig) -> ConvAutoencoder:
    """One of `codebook_size` codes of `dim` values for each 8x8 px, or as many as `widths` halve the sides to."""
    given = dict(variant.config["model"])
    widths = given.pop("widths", WIDTHS)
    return ConvAutoencoder(VectorQuantizer(**given), widths)


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Raises MissingWeights where it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
