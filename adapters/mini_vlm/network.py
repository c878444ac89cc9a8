"""mini_vlm: small vision-language models on the data set scenes, in which visual tokens are pruned."""

from __future__ import annotations

from tokbench.nn.vlm import MiniVLM, VlmShape
from tokbench.tokenizers.config import AdapterConfig


def model(variant: AdapterConfig) -> MiniVLM:
    """Build the untrained model that a TOML file describes."""
    return MiniVLM(VlmShape(**variant.config["model"]["shape"]))
