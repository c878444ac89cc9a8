"""enat: a masked prior that encodes visible tokens once (Ni et al., ENAT, arXiv:2411.06959)."""

from __future__ import annotations

from tokbench.errors import AdapterError
from tokbench.nn.priors.maskgit import check_steps
from tokbench.nn.priors.prior import PriorGenerator
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import base_tokenizer, load_trained, part

from .model import ENAT


def model(variant: AdapterConfig) -> ENAT:
    """Over the tokenizer that the TOML names as `base`. Raises MissingWeights where that is not trained."""
    return ENAT(base_tokenizer(variant), **variant.config["model"])


def load(variant: AdapterConfig, device: str) -> PriorGenerator:
    """With weights of its own; or those of the variant that the TOML names as `prior`, drawn in other `steps`.

    Raises MissingWeights where one of them, or the tokenizer below, is not trained.
    """
    if other := variant.config.get("prior"):
        found = part(variant, other)
        if not isinstance(found, PriorGenerator) or not isinstance(found.prior, ENAT):
            raise AdapterError(f"{variant.name}: its prior {other} is no ENAT")
        prior = found.prior
        check_steps(variant.config["steps"], prior.count)
        prior.steps = variant.config["steps"]
    else:
        prior = load_trained(variant, model(variant))
    return PriorGenerator(variant.name, prior, variant.config["guidance"])
