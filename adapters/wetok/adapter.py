"""wetok: group-wise lookup-free quantization (Zhuang et al., WeTok, arXiv:2508.05599)."""

from __future__ import annotations

from tokbench.nn.autoencoders import ConvAutoencoder
from tokbench.nn.quantizers.lfq import LFQ
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained


def model(variant: AdapterConfig) -> ConvAutoencoder:
    """Build the untrained model with `groups` groups of `bits` bits per 8x8 px."""
    given = dict(variant.config["model"])
    return ConvAutoencoder(LFQ(given.pop("bits"), given.pop("groups")), **given)


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
