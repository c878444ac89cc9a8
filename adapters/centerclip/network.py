"""centerclip: classifiers of clips whose tokens are clustered within segments of frames."""

from __future__ import annotations

from tokbench.nn.vit import Shape
from tokbench.pruning.clips.network import ClipClassifier
from tokbench.tokenizers.config import AdapterConfig


def model(variant: AdapterConfig) -> ClipClassifier:
    """Build the untrained classifier that a TOML file describes."""
    given = dict(variant.config["model"])
    return ClipClassifier(Shape(**given.pop("shape")), **given)
