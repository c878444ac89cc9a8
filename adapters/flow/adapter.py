"""flow: the standard prior over continuous tokens, the same for every tokenizer."""

from __future__ import annotations

from tokbench.nn.priors.flow import Flow
from tokbench.nn.priors.prior import PriorGenerator
from tokbench.tokenizers.config import Variant
from tokbench.training.zoo import base_tokenizer, restore


def model(variant: Variant) -> Flow:
    """Over the tokenizer that the TOML names as `base`. Raises MissingWeights where that is not trained."""
    return Flow(base_tokenizer(variant), **variant.config["model"])


def load(variant: Variant, device: str) -> PriorGenerator:
    """Raises MissingWeights where it, or the tokenizer below, is not trained."""
    return PriorGenerator(variant.name, restore(variant, model(variant)), variant.config["guidance"])
