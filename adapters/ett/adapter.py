"""ett: a tokenizer before it is tuned end to end with a captioner (Wang et al., ETT, arXiv:2505.10562)."""

from __future__ import annotations

from tokbench.nn.autoencoders import ConvAutoencoder
from tokbench.nn.quantizers.ibq import IndexBackpropagation
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained


def model(variant: AdapterConfig) -> ConvAutoencoder:
    """Build the untrained tokenizer, which is trained for reconstruction alone."""
    given = dict(variant.config["model"])
    return ConvAutoencoder(IndexBackpropagation(**given.pop("quantizer")), **given)


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
