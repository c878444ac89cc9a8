"""The file format of a protocol: reconstructions are stored and read again before they are compared."""

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
    """Return the batch after its images were stored in the protocol's format. `memory` and `png` are lossless and
    change nothing.

    Padded images are not stored here but in `scored`, after the padding was removed.
    """
    if protocol.crop == "pad" or not protocol.storage.startswith("jpeg") or batch.image is None:
        return batch
    pixels = to_uint8(batch.rounded("image", protocol.rounding)).permute(0, 2, 3, 1).numpy()
    read = np.stack([_through_file(image, protocol) for image in pixels])
    return replace(batch, image=from_uint8(torch.from_numpy(read).permute(0, 3, 1, 2)), image_memo=DerivedCache())


def scored(square: np.ndarray, width: int, height: int, protocol: Protocol) -> np.ndarray:
    """Return the pixels for text and face recognition: an output image, uint8 (H, W, 3), resized to width x height and
    stored as the protocol requires.

    Raises NotApplicable where the protocol crops images.
    """
    if protocol.crop == "pad":
        return _through_file(undo_letterbox(square, width, height), protocol)
    if square.shape[:2] == (height, width):
        return square
    raise NotApplicable(
        f"protocol {protocol.name} crops images, but words and faces need whole images; use --suite tokbench-256 or "
        "--protocol tokbench-peer"
    )


def _through_file(pixels: np.ndarray, protocol: Protocol) -> np.ndarray:
    if not protocol.storage.startswith("jpeg"):
        return pixels
    buffer = io.BytesIO()
    quality = int(protocol.storage.removeprefix("jpeg.q"))
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)  # Pillow's default chroma subsampling is 4:2:0
    return np.asarray(Image.open(buffer))
