"""Image codecs at one quality: `jpeg.q50`, `webp.q50`, `avif.q50` and `jxl.q50`, and `jpeg2000.db36` at a target PSNR.

Their bits are those of the encoded files. JPEG XL needs the package pillow-jxl-plugin, the others are part of Pillow.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from importlib.metadata import version
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
    # The 9/7 wavelet and the colour transform of lossy JPEG 2000. Its encoders have no scale of quality: they meet a
    # target PSNR or a file size; with a PSNR, the bits follow from the image, as with the other codecs.
    "jpeg2000": {"format": "JPEG2000", "irreversible": True, "mct": 1, "quality_mode": "dB"},
    "jxl": {"format": "JXL", "effort": 7, "num_threads": 1},
}

_DB = range(10, 61)
"""The target PSNRs of JPEG 2000 in dB. Above about 50 dB, rounding limits the PSNR that is reached."""


class Codec(Tokenizer):
    """One image format with one set of options of its encoder. Bits include the whole file."""

    def __init__(self, name: str, options: dict[str, Any], library: str = "") -> None:
        """options: keyword arguments of Pillow's `save`. library: name and version of the encoder, for results."""
        self._options = options
        self.spec = TokenizerSpec(name, "codec")
        if library:
            self.recorded = {"library": library}

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
    """Return the codec for a name such as `jpeg.q50` or `jpeg2000.db36`.

    Raises UsageError where the quality is malformed, AdapterError where the format is not supported on this machine.
    """
    family, _, quality = name.partition(".")
    if family == "jpeg2000":
        return _jpeg2000(name, quality)
    if not re.fullmatch(r"q(0|[1-9][0-9]?|100)", quality):
        raise UsageError(f"'{name}': the quality must be q0 to q100, as in {family}.q50")
    options = {**_OPTIONS[family], "quality": int(quality[1:])}
    if family == "jxl":
        return _jpeg_xl(name, options)
    if family != "jpeg" and not features.check(family):
        raise AdapterError(
            f"{name}: this Pillow was built without {family.upper()}; install Pillow 11.3 or newer from PyPI"
        )
    return Codec(name, options)


def _jpeg2000(name: str, target: str) -> Codec:
    if not re.fullmatch(r"db[1-9][0-9]", target) or (decibels := int(target[2:])) not in _DB:
        raise UsageError(f"'{name}': JPEG 2000 has a target PSNR in dB, db{_DB[0]} to db{_DB[-1]}, as in jpeg2000.db36")
    if not features.check("jpg_2000"):
        raise AdapterError(f"{name}: this Pillow was built without JPEG 2000; install Pillow 11.3 or newer from PyPI")
    options = {**_OPTIONS["jpeg2000"], "quality_layers": [decibels]}
    return Codec(name, options, f"OpenJPEG {features.version('jpg_2000')}")


def _jpeg_xl(name: str, options: dict[str, Any]) -> Codec:
    try:
        import pillow_jxl  # noqa: F401  # registers the format with Pillow
    except ImportError as error:
        raise AdapterError(
            f"{name}: JPEG XL needs the package pillow-jxl-plugin ({error}); pip install 'tokbench[codecs]'"
        ) from error
    if options["quality"] == 100:  # as in libjxl's own encoder; a lossy encoding of this quality is refused
        options = {**options, "lossless": True}
    return Codec(name, options, f"pillow-jxl-plugin {version('pillow-jxl-plugin')}")
