"""enat: a masked prior that encodes visible tokens once (Ni et al., ENAT, arXiv:2411.06959)."""

from __future__ import annotations

from tokbench.nn.priors.prior import PriorGenerator
from tokbench.training import base_tokenizer, restore
from tokbench.variant import Variant

from .model import ENAT


def model(variant: Variant) -> ENAT:
    """Over the tokenizer that the TOML names as `base`. Raises MissingWeights where that is not trained."""
    return ENAT(base_tokenizer(variant), **variant.config["model"])


def load(variant: Variant, device: str) -> PriorGenerator:
    """Raises MissingWeights where it, or the tokenizer below, is not trained."""
    return PriorGenerator(variant.name, restore(variant, model(variant)), variant.config["guidance"])
