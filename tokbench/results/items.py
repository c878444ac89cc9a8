"""What the items of a result are, in words: `4 clips of 64x64 px`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokbench.metric_names import ITEMS
from tokbench.results.result import Result


def noun_of(result: Result) -> str:
    """Return the noun of one item of the data of a result."""
    return ITEMS[result.provenance["data"].get("modality", "image")].noun


def describe_size(data: Mapping[str, Any]) -> str:
    """Return the size of the items in the data facts of a result: of images and frames in pixels, of waveforms in
    samples at their rate, of shapes in voxels per side."""
    modality, width, height = data.get("modality", "image"), data["width"], data["height"]
    if modality == "sound":
        return f"{width:,} samples at {data['side']:,} {ITEMS[modality].unit}"
    if modality == "shape":
        return f"{width}x{width}x{width} {ITEMS[modality].unit}"
    return f"{width}x{height} {ITEMS[modality].unit}"
