"""`jpeg.q50`, `webp.q50`, `avif.q50`: Pillow's encoders at one quality. Their bits are those of the encoded files."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, features
from torch import Tensor

from tokbench.errors import AdapterError, UsageError
from tokbench.protocol.rounding import from_uint8, to_uint8
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens

# 4:2:0 chroma is the usual setting for photos. The search settings of each encoder are the same at every quality.
_OPTIONS: dict[str, dict[str, Any]] = {
    "jpeg": {"format": "JPEG", "optimize": True, "subsampling": "4:2:0"},
    "webp": {"format": "WEBP", "method": 6},
    # One thread, since the encoder cuts the image into as many tiles as there are threads, which changes its bytes.
    "avif": {"format": "AVIF", "speed": 6, "subsampling": "4:2:0", "max_threads": 1},
}


class Codec(Tokenizer):
    """One image format at one quality, from 0 to 100 on the encoder's own scale. Bits include the whole file."""

    def __init__(self, name: str, family: str, quality: int) -> None:
        self._options = {**_OPTIONS[family], "quality": quality}
        self.spec = TokenizerSpec(name, "codec")

    def encode(self, images: Tensor) -> Tokens:
        files = []
        for picture in to_pillow(to_uint8(images)):
            buffer = io.BytesIO()
            picture.save(buffer, **self._options)
            files.append(buffer.getvalue())
        return Tokens.from_bytes(files)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        return from_pillow([Image.open(io.BytesIO(file)).convert("RGB") for file in tokens.files])


def to_pillow(pixels: Tensor) -> list[Image.Image]:
    """Convert uint8 (B, 3, H, W) to B Pillow RGB images."""
    return [Image.fromarray(array) for array in pixels.permute(0, 2, 3, 1).cpu().numpy()]


def from_pillow(images: list[Image.Image]) -> Tensor:
    """Convert B Pillow RGB images of one size to float32 (B, 3, H, W) in [0, 1]."""
    return from_uint8(torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2))


def load(name: str) -> Codec:
    """Return the codec for a name such as `jpeg.q50`.

    Raises UsageError where the quality is malformed, AdapterError where this Pillow does not support the format.
    """
    family, _, quality = name.partition(".")
    if not re.fullmatch(r"q(0|[1-9][0-9]?|100)", quality):
        raise UsageError(f"'{name}': the quality must be q0 to q100, as in {family}.q50")
    if family != "jpeg" and not features.check(family):
        raise AdapterError(
            f"{name}: this Pillow was built without {family.upper()}; install Pillow 11.3 or newer from PyPI"
        )
    return Codec(name, family, int(quality[1:]))
