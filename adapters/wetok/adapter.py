"""wetok: lookup-free quantization in groups (Zhuang et al., WeTok, arXiv:2508.05599)."""

from __future__ import annotations

from tokbench.nn.autoencoders import ConvAutoencoder
from tokbench.nn.quantizers.lfq import LFQ
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained


def model(variant: AdapterConfig) -> ConvAutoencoder:
    """`groups` groups of `bits` bits for each 8x8 px."""
    return ConvAutoencoder(LFQ(**variant.config["model"]))


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Raises MissingWeights where it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
