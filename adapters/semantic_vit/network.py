"""semantic_vit: a vision transformer pre-trained on EfficientNet-Lite0's features, from which tokenizers start."""

from __future__ import annotations

from tokbench.nn.semantic_vit import SemanticViT
from tokbench.nn.vit import Shape
from tokbench.tokenizers.config import AdapterConfig


def model(variant: AdapterConfig) -> SemanticViT:
    """Build the untrained network that a TOML file describes."""
    return SemanticViT(Shape(**variant.config["model"]["shape"]))
