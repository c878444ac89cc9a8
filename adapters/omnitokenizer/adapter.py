"""omnitokenizer: one tokenizer of images and clips (Wang et al., arXiv:2406.09399)."""

from __future__ import annotations

from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.vit import Shape
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained

from .model import OmniAutoencoder


def model(variant: AdapterConfig) -> OmniAutoencoder:
    """Build the untrained model that a TOML file describes."""
    given = dict(variant.config["model"])
    return OmniAutoencoder(VectorQuantizer(**given.pop("quantizer")), Shape(**given.pop("shape")), **given)


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
