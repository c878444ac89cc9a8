"""gpt: the standard autoregressive prior, the same over every tokenizer of discrete tokens."""

from __future__ import annotations

from tokbench.nn.priors.gpt import GPT
from tokbench.nn.priors.prior import PriorGenerator
from tokbench.training import base_tokenizer, restore
from tokbench.variant import Variant


def model(variant: Variant) -> GPT:
    """Over the tokenizer that the TOML names as `base`. Raises MissingWeights where that is not trained."""
    return GPT(base_tokenizer(variant), **variant.config["model"])


def load(variant: Variant, device: str) -> PriorGenerator:
    """Raises MissingWeights where it, or the tokenizer below, is not trained."""
    return PriorGenerator(variant.name, restore(variant, model(variant)), variant.config["guidance"])
