"""dates_audio: codecs of waveforms with residual, product and finite scalar quantization at equal bitrate, after the
taxonomy of "Discrete Audio Tokens: More Than a Survey!" (Mousavi et al., arXiv:2506.10274)."""

from __future__ import annotations

from typing import Any

from tokbench.errors import AdapterError
from tokbench.nn.quantizers.fsq import FSQ
from tokbench.nn.quantizers.product import Product, ProductVQ
from tokbench.nn.quantizers.quantizer import Quantizer
from tokbench.nn.quantizers.residual import ResidualVQ
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.waveforms import WaveAutoencoder
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import base_tokenizer, load_trained


def model(variant: AdapterConfig) -> WaveAutoencoder:
    """Build the untrained codec of a variant whose TOML defines a training."""
    given = dict(variant.config["model"])
    return WaveAutoencoder(_quantizer(variant.name, **given.pop("quantizer")), **given)


def _quantizer(name: str, kind: str, **given: Any) -> Quantizer:
    """Return the quantizer that the TOML describes: `rvq`, `product` or `fsq`, the last with one FSQ per codebook."""
    if kind == "rvq":
        return ResidualVQ(**given)
    if kind == "product":
        return ProductVQ(**given)
    if kind == "fsq":
        return Product([FSQ(given["levels"]) for _ in range(given["groups"])])
    raise AdapterError(f"{name}: [model.quantizer] of its TOML says kind {kind!r}; give rvq, product or fsq")


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained codec, or the first `books` codebooks of the codec that the TOML names as `base`.

    Raises MissingWeights if it is not trained.
    """
    if "base" not in variant.config:
        return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
    whole = base_tokenizer(variant)
    assert isinstance(whole, LearnedTokenizer)
    bottleneck = whole.model.bottleneck
    if not isinstance(bottleneck, ResidualVQ):
        raise AdapterError(f"{variant.name}: its base {variant.config['base']} has no residual quantizer")
    bottleneck.keep_first(variant.config["books"])
    return LearnedTokenizer(variant.name, whole.model)
