"""disco_token: condition vectors of a frozen generator, tuned by a classifier (Schwartz et al., arXiv:2303.17155)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import ModuleDict

from tokbench.errors import AdapterError
from tokbench.nn.priors.flow import Flow
from tokbench.nn.priors.prior import PriorGenerator
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.tokens import Tokens
from tokbench.training.zoo import base, base_prior, load_trained

from .model import DiscriminativeTokens


class DiscriminativeGenerator(PriorGenerator):
    """The generator whose conditions are the prior's class vectors plus one tuned vector per class."""

    def __init__(self, name: str, model: DiscriminativeTokens, tokenizer: Tokenizer, guidance: float) -> None:
        super().__init__(name, model.prior, guidance, tokenizer)
        self.model = model
        assert isinstance(self.module, ModuleDict)
        self.module["tuned"] = model

    def sample(self, labels: Tensor, seeds: Sequence[int], guidance: float) -> Tokens:
        with torch.no_grad():
            return self.prior.tokens(self.model.prior.sample_from(self.model.condition(labels), seeds, guidance))


def model(variant: AdapterConfig) -> DiscriminativeTokens:
    """Build the untuned model.

    Raises MissingWeights if the prior or its tokenizer is not trained, AdapterError if gradients do not pass through
    the tokenizer.
    """
    return _untuned(variant)[0]


def _untuned(variant: AdapterConfig) -> tuple[DiscriminativeTokens, LearnedTokenizer]:
    """Return the untuned model and the tokenizer that decodes its samples."""
    prior, tokenizer = base_prior(variant, Flow)
    if not isinstance(tokenizer, LearnedTokenizer):
        raise AdapterError(f"{variant.name}: gradients do not pass through the tokenizer {tokenizer.spec.name}")
    return DiscriminativeTokens(prior, tokenizer.model, **variant.config["model"]), tokenizer


def load(variant: AdapterConfig, device: str) -> DiscriminativeGenerator:
    """Load the tuned vectors, or the `control` of the variant that the TOML names as `base`.

    Raises MissingWeights if the vectors, the prior or its tokenizer are not trained, AdapterError for another control
    than `untuned` and `random`.
    """
    tokenizer: Tokenizer
    if "control" not in variant.config:
        untuned, tokenizer = _untuned(variant)
        tuned = load_trained(variant, untuned)
    elif variant.config["control"] in ("untuned", "random"):
        _, tokenizer = base_prior(variant, Flow)
        tuned = base(variant, DiscriminativeTokens).control(random=variant.config["control"] == "random")
    else:
        raise AdapterError(f"{variant.name}: control = {variant.config['control']!r}; give one of untuned, random")
    return DiscriminativeGenerator(variant.name, tuned, tokenizer, variant.config["guidance"])
