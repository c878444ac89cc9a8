"""trajvit: classifiers of clips with one token for each trajectory of an object."""

from __future__ import annotations

from tokbench.nn.vit import Shape
from tokbench.pruning.clips.trajvit import TrajectoryClassifier
from tokbench.tokenizers.config import AdapterConfig


def model(variant: AdapterConfig) -> TrajectoryClassifier:
    """Build the untrained classifier that a TOML file describes."""
    given = dict(variant.config["model"])
    return TrajectoryClassifier(Shape(**given.pop("shape")), **given)
