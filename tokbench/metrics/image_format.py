"""Storage: what a protocol's file format does to reconstructions before they are compared."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from tokbench.data.letterbox import undo_letterbox
from tokbench.errors import NotApplicable
from tokbench.metrics.batch import Batch, DerivedCache
from tokbench.protocol.protocol import Protocol
from tokbench.protocol.rounding import from_uint8, to_uint8


def roundtrip_format(batch: Batch, protocol: Protocol) -> Batch:
    """The batch as it is after its images went through a file: itself for `memory` and `png`, which lose nothing.

    Padded images are stored at their own size, when `scored` has brought them back to it.
    """
    if protocol.crop == "pad" or not protocol.storage.startswith("jpeg") or batch.image is None:
        return batch
    pixels = to_uint8(batch.rounded("image", protocol.rounding)).permute(0, 2, 3, 1).numpy()
    read = np.stack([_through_file(image, protocol) for image in pixels])
    return replace(batch, image=from_uint8(torch.from_numpy(read).permute(0, 3, 1, 2)), image_memo=DerivedCache())


def scored(square: np.ndarray, width: int, height: int, protocol: Protocol) -> np.ndarray:
    """What text and faces are read from: uint8 pixels (H, W, 3) as they came out, brought back to the size of their
    file and stored as the protocol says. Raises NotApplicable where the protocol cut parts of the image away."""
    if protocol.crop == "pad":
        return _through_file(undo_letterbox(square, width, height), protocol)
    if square.shape[:2] == (height, width):
        return square
    raise NotApplicable(
        f"protocol {protocol.name} crops images, and words and faces need whole ones; use --suite tokbench-256 or "
        "--protocol tokbench-peer"
    )


def _through_file(pixels: np.ndarray, protocol: Protocol) -> np.ndarray:
    if not protocol.storage.startswith("jpeg"):
        return pixels
    buffer = io.BytesIO()
    quality = int(protocol.storage.removeprefix("jpeg.q"))
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)  # Pillow's default: 4:2:0
    return np.asarray(Image.open(buffer))
