"""token_shuffle: a GPT over windows of tokens (Ma et al., Token-Shuffle, arXiv:2504.17789)."""

from __future__ import annotations

from tokbench.nn.priors.prior import PriorGenerator
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import base_tokenizer, load_trained

from .model import TokenShuffle


def model(variant: AdapterConfig) -> TokenShuffle:
    """Over the tokenizer that the TOML names as `base`. Raises MissingWeights where that is not trained."""
    return TokenShuffle(base_tokenizer(variant), **variant.config["model"])


def load(variant: AdapterConfig, device: str) -> PriorGenerator:
    """Raises MissingWeights where it, or the tokenizer below, is not trained."""
    return PriorGenerator(variant.name, load_trained(variant, model(variant)), variant.config["guidance"])
