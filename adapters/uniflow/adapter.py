"""uniflow: one latent for semantics and pixels, with a flow decoder for each patch (UniFlow, arXiv:2510.10575)."""

from __future__ import annotations

import copy

from tokbench.errors import AdapterError
from tokbench.nn.semantic_vit import SemanticViT
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.vit import Shape
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import base, load_trained, network

from .model import UniFlow


def _untrained(variant: AdapterConfig) -> UniFlow:
    given = dict(variant.config["model"])
    return UniFlow(Shape(**given.pop("shape")), **given)


def model(variant: AdapterConfig) -> UniFlow:
    """Build the model before its training. Raises MissingWeights if the pre-trained encoder is not trained."""
    teacher = network(variant, "teacher")
    if not isinstance(teacher, SemanticViT):
        raise AdapterError(f"{variant.name}: its teacher {variant.config['teacher']} is not a SemanticViT")
    untrained = _untrained(variant)
    untrained.start_from(teacher.vit)
    return untrained


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer; the teacher is not needed. Raises MissingWeights if it is not trained.

    A variant with a `base` is that tokenizer with another number of decoding `steps`.
    """
    if "base" not in variant.config:
        return LearnedTokenizer(variant.name, load_trained(variant, _untrained(variant)))
    same = copy.copy(base(variant, UniFlow))
    same.steps = variant.config["steps"]
    return LearnedTokenizer(variant.name, same)
