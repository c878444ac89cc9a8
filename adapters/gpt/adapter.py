"""gpt: the standard autoregressive prior, the same over every tokenizer of discrete tokens."""

from __future__ import annotations

import torch

from tokbench.errors import AdapterError
from tokbench.nn.priors.gpt import GPT
from tokbench.nn.priors.prior import PriorGenerator
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import base_tokenizer, load_trained, part


def model(variant: AdapterConfig) -> GPT:
    """Over the tokenizer that the TOML names as `base`. Raises MissingWeights where that is not trained."""
    return GPT(base_tokenizer(variant), **variant.config["model"])


def load(variant: AdapterConfig, device: str) -> PriorGenerator:
    """With weights of its own, or those of the variant that the TOML names as `prior`: its tokens must be the same, and
    only their decoder another.

    Raises MissingWeights where one of them is not trained, AdapterError where tokens differ.
    """
    tokenizer = base_tokenizer(variant)
    if other := variant.config.get("prior"):
        found = part(variant, other)
        if not isinstance(found, PriorGenerator):
            raise AdapterError(f"{variant.name}: its prior {other} is none")
        _refuse_other_tokens(variant.name, found.tokenizer, tokenizer)
        return PriorGenerator(variant.name, found.prior, variant.config["guidance"], tokenizer)
    prior = load_trained(variant, GPT(tokenizer, **variant.config["model"]))
    return PriorGenerator(variant.name, prior, variant.config["guidance"])


def _refuse_other_tokens(name: str, first: Tokenizer, second: Tokenizer) -> None:
    ours, theirs = ({} if one.module is None else one.module.state_dict() for one in (first, second))
    apart = [key for key in ours if not key.startswith(("decoder", "pixels")) and key in theirs]
    if ours.keys() != theirs.keys() or not all(torch.equal(ours[key], theirs[key]) for key in apart):
        names = f"{first.spec.name} and {second.spec.name}"
        raise AdapterError(f"{name}: {names} do not encode alike; name two that differ in their decoder alone")
