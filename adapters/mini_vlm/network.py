"""mini_vlm: small vision-language models on the data set scenes, in which visual tokens are pruned."""

from __future__ import annotations

from tokbench.errors import AdapterError
from tokbench.nn.vlm import InContextVLM, MiniVLM, VisionLanguage, VlmShape
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import network


def model(variant: AdapterConfig) -> VisionLanguage:
    """Build the model that a TOML file describes, on its trained `base` if there is one.

    Raises AdapterError if the base is not a MiniVLM, MissingWeights if it is not trained.
    """
    given = variant.config["model"]
    if "base" not in variant.config:
        return MiniVLM(VlmShape(**given["shape"]))
    base = network(variant, "base")
    if not isinstance(base, MiniVLM):
        raise AdapterError(f"{variant.name}: its base {variant.config['base']} is not a MiniVLM")
    return InContextVLM(base, **given)
