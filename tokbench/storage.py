"""Storage: what a protocol's file format does to reconstructions before they are compared."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from tokbench.batch import Batch, Memo
from tokbench.pixels import from_bytes, to_bytes
from tokbench.protocol import Protocol


def stored(batch: Batch, protocol: Protocol) -> Batch:
    """The batch as it is after its images went through a file: itself for `memory` and `png`, which lose nothing."""
    if not protocol.storage.startswith("jpeg") or batch.image is None:
        return batch
    quality = int(protocol.storage.removeprefix("jpeg.q"))
    pixels = to_bytes(batch.rounded("image", protocol.rounding)).permute(0, 2, 3, 1).numpy()
    read = np.stack([_through_jpeg(image, quality) for image in pixels])
    return replace(batch, image=from_bytes(torch.from_numpy(read).permute(0, 3, 1, 2)), image_memo=Memo())


def _through_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)  # Pillow's default: 4:2:0
    return np.asarray(Image.open(buffer))
