"""instella_t2i: a row of binary tokens (Wang et al., Instella-T2I, arXiv:2506.21022)."""

from __future__ import annotations

from tokbench.nn.autoencoders import QueryAutoencoder
from tokbench.nn.learned import LearnedTokenizer
from tokbench.nn.quantizers.bits import BernoulliBits
from tokbench.nn.quantizers.quantizer import Quantizer
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.vit import Shape
from tokbench.training import restore
from tokbench.variant import Variant


def model(variant: Variant) -> QueryAutoencoder:
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


def load(variant: Variant, device: str) -> LearnedTokenizer:
    """Raises MissingWeights where it is not trained."""
    return LearnedTokenizer(variant.name, restore(variant, model(variant)))
