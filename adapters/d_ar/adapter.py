"""d_ar: tokens that are steps of denoising (Gao and Shou, D-AR, arXiv:2505.23660)."""

from __future__ import annotations

from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.vit import Shape
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained

from .model import DAR


def model(variant: AdapterConfig) -> DAR:
    given = dict(variant.config["model"])
    shape, quantizer = Shape(**given.pop("shape")), VectorQuantizer(**given.pop("quantizer"))
    return DAR(shape, given.pop("tokens"), quantizer, **given)


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Raises MissingWeights where it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)), prefixes=True)
