"""vqgan: a convolutional autoencoder with vector quantization (Esser et al., VQGAN, arXiv:2012.09841)."""

from __future__ import annotations

from tokbench.nn.autoencoders import ConvAutoencoder
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained


def model(variant: AdapterConfig) -> ConvAutoencoder:
    """Build the untrained model with `codebook_size` codes of `dim` values.

    There is one token per 8x8 px, or per 2^n x 2^n px with n `widths`.
    """
    given = dict(variant.config["model"])
    layout = {key: given.pop(key) for key in ("widths", "stem", "linear") if key in given}
    return ConvAutoencoder(VectorQuantizer(**given), **layout)


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
