"""vitok: a transformer VAE with encoder and decoder of separate sizes (Hansen-Estruch et al., arXiv:2501.09755)."""

from __future__ import annotations

from tokbench.nn.autoencoders import GridAutoencoder
from tokbench.nn.quantizers.kl import KL
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.vit import Shape
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained


def model(variant: AdapterConfig) -> GridAutoencoder:
    """Build the untrained model with `channels` values per patch; encoder and decoder have separate shapes."""
    given = variant.config["model"]
    bottleneck = KL(given["channels"], weight=given["weight"])
    return GridAutoencoder(Shape(**given["encoder"]), Shape(**given["decoder"]), bottleneck, given.get("linear", False))


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
