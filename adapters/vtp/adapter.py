"""vtp: a tokenizer pre-trained by reconstruction, captions and self-distillation at once (VTP, arXiv:2512.13687)."""

from __future__ import annotations

from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.vit import Shape
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained

from .model import VTP


def model(variant: AdapterConfig) -> VTP:
    """Build the untrained model that a TOML file describes."""
    given = dict(variant.config["model"])
    return VTP(Shape(**given.pop("encoder")), Shape(**given.pop("decoder")), **given)


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
