"""drsformer: restores images with rain by sparse attention between channels (Chen et al., arXiv:2303.11950)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tokbench.tokenizers.base import PrecomputedImages
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.training.zoo import load_trained

from .model import DRSformer


class Restoration(PrecomputedImages):
    """A network from images to images, without tokens."""

    def __init__(self, name: str, model: DRSformer) -> None:
        self.model = self.module = model.eval()
        self.spec = TokenizerSpec(name, "images", multiple=2)

    def reconstruct(self, images: Tensor, names: Sequence[str]) -> Tensor:
        return self.model(images).clamp(0, 1)


def model(variant: AdapterConfig) -> DRSformer:
    """Build the untrained network that a TOML file describes."""
    return DRSformer(**variant.config["model"])


def load(variant: AdapterConfig, device: str) -> Restoration:
    """Load a trained network. Raises MissingWeights if it is not trained."""
    return Restoration(variant.name, load_trained(variant, model(variant)).to(device))
