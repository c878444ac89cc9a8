"""titok: an image as a short 1D token sequence (Yu et al., An Image is Worth 32 Tokens, arXiv:2406.07550)."""

from __future__ import annotations

from tokbench.errors import AdapterError
from tokbench.nn.autoencoders import GridAutoencoder, QueryAutoencoder
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.tokenizer import BottleneckAutoencoder, LearnedTokenizer
from tokbench.nn.vit import Shape
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained


def model(variant: AdapterConfig) -> BottleneckAutoencoder:
    """Build the untrained model.

    `kind` "row" has `tokens` learned queries; "grid" is the ablation with as many patches, each of which is a token.
    Raises AdapterError if the grid does not have `tokens` patches.
    """
    given = variant.config["model"]
    quantizer = VectorQuantizer(**given["quantizer"])
    shape = Shape(**given["shape"])
    if given["kind"] == "row":
        return QueryAutoencoder(shape, given["tokens"], quantizer)
    if given["kind"] != "grid" or shape.patches != given["tokens"]:
        raise AdapterError(f"{variant.name}: a grid of {shape.patches} patches does not give {given['tokens']} tokens")
    return GridAutoencoder(shape, shape, quantizer)


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
