"""instella_t2i: a row of binary tokens (Wang et al., Instella-T2I, arXiv:2506.21022)."""

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
    """`tokens` tokens of `bits` bits; or, in the twins, of one index each into a codebook of [model.quantizer]."""
    given = variant.config["model"]
    shape = Shape(**given["shape"])
    quantizer: Quantizer
    quantizer = (
        VectorQuantizer(**given["quantizer"])
        if "quantizer" in given
        else BernoulliBits(dim=shape.width, **given["binary"])
    )
    return QueryAutoencoder(shape, given["tokens"], quantizer)


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Raises MissingWeights where it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
