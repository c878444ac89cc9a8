"""focus_detr: detectors of the shapes and words of scenes, whose encoder updates a share of the tokens."""

from __future__ import annotations

from tokbench.nn.detr import FocusDETR
from tokbench.tokenizers.config import AdapterConfig


def model(variant: AdapterConfig) -> FocusDETR:
    """Build the untrained detector that a TOML file describes."""
    return FocusDETR(**variant.config["model"])
