"""instella_t2i: a 1D tokenizer with binary tokens (Wang et al., Instella-T2I, arXiv:2506.21022)."""

from __future__ import annotations

from tokbench.nn.autoencoders import QueryAutoencoder
from tokbench.nn.quantizers.bits import BernoulliBits
from tokbench.nn.quantizers.quantizer import Quantizer
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.vit import Shape
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained


def model(variant: AdapterConfig) -> QueryAutoencoder:
    """Build the untrained model with `tokens` tokens of `bits` bits.

    With a table [model.quantizer], the ablation, a token is an index into a codebook instead.
    """
    given = variant.config["model"]
    shape = Shape(**given["shape"])
    quantizer: Quantizer
    quantizer = (
        VectorQuantizer(**given["quantizer"])
        if "quantizer" in given
        else BernoulliBits(**{"dim": shape.width} | given["binary"])
    )
    return QueryAutoencoder(shape, given["tokens"], quantizer, linear=given.get("linear", False))


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
