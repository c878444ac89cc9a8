"""gpt: the standard autoregressive prior over discrete tokens, identical for every tokenizer."""

from __future__ import annotations

import torch

from tokbench.errors import AdapterError
from tokbench.nn.priors.gpt import GPT
from tokbench.nn.priors.prior import PriorGenerator
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import base_prior, base_tokenizer, load_trained


def model(variant: AdapterConfig) -> GPT:
    """Build the untrained prior over the TOML's `base` tokenizer. Raises MissingWeights if that is not trained."""
    return GPT(base_tokenizer(variant), **variant.config["model"])


def load(variant: AdapterConfig, device: str) -> PriorGenerator:
    """Load a trained prior, or that of the variant which the TOML names as `prior`, with another decoder.

    In the second case both tokenizers must encode identically and may differ only in their decoders. Raises
    MissingWeights if one of the models is not trained, AdapterError if the tokenizers encode differently.
    """
    tokenizer = base_tokenizer(variant)
    if "prior" in variant.config:
        prior, trained_on = base_prior(variant, GPT)
        _refuse_other_tokens(variant.name, trained_on, tokenizer)
        return PriorGenerator(variant.name, prior, variant.config["guidance"], tokenizer)
    prior = load_trained(variant, GPT(tokenizer, **variant.config["model"]))
    return PriorGenerator(variant.name, prior, variant.config["guidance"])


def _refuse_other_tokens(name: str, first: Tokenizer, second: Tokenizer) -> None:
    ours, theirs = ({} if one.module is None else one.module.state_dict() for one in (first, second))
    shared = [key for key in ours if not key.startswith(("decoder", "pixels")) and key in theirs]
    if ours.keys() != theirs.keys() or not all(torch.equal(ours[key], theirs[key]) for key in shared):
        names = f"{first.spec.name} and {second.spec.name}"
        raise AdapterError(f"{name}: {names} encode differently; use two tokenizers that differ only in their decoders")
