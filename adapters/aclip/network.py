"""aclip: image encoders that are trained with captions while they see a part of the patches."""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer

from tokbench.pruning.aclip import AClip
from tokbench.tokenizers.config import AdapterConfig


def model(variant: AdapterConfig) -> AClip:
    """Build the untrained encoders that a TOML file describes."""
    given = dict(variant.config["model"])
    vit = VisionTransformer(num_classes=given.pop("space"), **given.pop("vit"))
    return AClip(vit, tuple(given.pop("text")), **given)
