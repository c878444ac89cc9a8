"""maskgit: the standard masked prior over discrete tokens, identical for every tokenizer."""

from __future__ import annotations

from tokbench.nn.priors.maskgit import MaskGIT
from tokbench.nn.priors.prior import PriorGenerator
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import base_tokenizer, load_trained


def model(variant: AdapterConfig) -> MaskGIT:
    """Build the untrained prior over the TOML's `base` tokenizer. Raises MissingWeights if that is not trained."""
    return MaskGIT(base_tokenizer(variant), **variant.config["model"])


def load(variant: AdapterConfig, device: str) -> PriorGenerator:
    """Load the trained prior. Raises MissingWeights if the prior or its tokenizer is not trained."""
    return PriorGenerator(variant.name, load_trained(variant, model(variant)), variant.config["guidance"])
