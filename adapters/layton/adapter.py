"""layton: VQ tokens of the small image, decoded by a latent flow that was turned into a one-step decoder (Layton)."""

from __future__ import annotations

from tokbench.errors import AdapterError
from tokbench.nn.autoencoders import ConvAutoencoder
from tokbench.nn.priors.flow import Flow
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import base, base_prior, load_trained

from .model import Layton


def model(variant: AdapterConfig) -> Layton:
    """Build the untrained model. Raises MissingWeights if the tokenizer, the flow or its autoencoder is not trained."""
    prior, trained_on = base_prior(variant, Flow)
    around = getattr(trained_on, "model", None)
    if not isinstance(around, ConvAutoencoder):
        raise AdapterError(f"{variant.name}: the latents of its prior are not those of a convolutional autoencoder")
    return Layton(base(variant, ConvAutoencoder), prior, around, **variant.config["model"])


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it or a model that it is built on is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
