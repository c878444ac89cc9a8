"""maskgit: the standard masked prior, the same over every tokenizer of discrete tokens."""

from __future__ import annotations

from tokbench.nn.priors.maskgit import MaskGIT
from tokbench.nn.priors.prior import PriorGenerator
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import base_tokenizer, load_trained


def model(variant: AdapterConfig) -> MaskGIT:
    """Over the tokenizer that the TOML names as `base`. Raises MissingWeights where that is not trained."""
    return MaskGIT(base_tokenizer(variant), **variant.config["model"])


def load(variant: AdapterConfig, device: str) -> PriorGenerator:
    """Raises MissingWeights where it, or the tokenizer below, is not trained."""
    return PriorGenerator(variant.name, load_trained(variant, model(variant)), variant.config["guidance"])
