"""enat: a masked prior that encodes each visible token only once (Ni et al., ENAT, arXiv:2411.06959)."""

from __future__ import annotations

from tokbench.nn.priors.maskgit import check_steps
from tokbench.nn.priors.prior import PriorGenerator
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import base_prior, base_tokenizer, load_trained

from .model import ENAT


def model(variant: AdapterConfig) -> ENAT:
    """Build the untrained prior over the TOML's `base` tokenizer. Raises MissingWeights if that is not trained."""
    return ENAT(base_tokenizer(variant), **variant.config["model"])


def load(variant: AdapterConfig, device: str) -> PriorGenerator:
    """Load a trained prior, or that of the variant which the TOML names as `prior`, with another number of `steps`.

    Raises MissingWeights if the prior or its tokenizer is not trained, AdapterError if `prior` is not an ENAT.
    """
    if "prior" in variant.config:
        prior, _ = base_prior(variant, ENAT)
        check_steps(variant.config["steps"], prior.count)
        prior.steps = variant.config["steps"]
    else:
        prior = load_trained(variant, model(variant))
    return PriorGenerator(variant.name, prior, variant.config["guidance"])
