"""h2ot: pose lifting with pruned and recovered frames (HoT, arXiv:2311.12028, and H2OT)."""

from __future__ import annotations

from tokbench.nn.pose_lifter import PoseLifter
from tokbench.tokenizers.config import AdapterConfig


def model(variant: AdapterConfig) -> PoseLifter:
    """Build the untrained network that a TOML file describes. Raises AdapterError if it describes none."""
    return PoseLifter(**variant.config["model"])
