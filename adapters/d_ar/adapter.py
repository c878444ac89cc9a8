"""d_ar: a 1D tokenizer whose tokens condition successive denoising steps (Gao and Shou, D-AR, arXiv:2505.23660)."""

from __future__ import annotations

from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.vit import Shape
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained

from .model import DAR


def model(variant: AdapterConfig) -> DAR:
    """Build the untrained model that a TOML file describes."""
    given = dict(variant.config["model"])
    shape, quantizer = Shape(**given.pop("shape")), VectorQuantizer(**given.pop("quantizer"))
    return DAR(shape, given.pop("tokens"), quantizer, **given)


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)), prefixes=True)
