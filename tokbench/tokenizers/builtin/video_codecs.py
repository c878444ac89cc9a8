"""`h264.q23`: H.264 by libx264 at one constant rate factor. Its bits are those of the stream of each clip."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from tokbench.errors import AdapterError, UsageError
from tokbench.protocol.rounding import from_uint8, to_uint8
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens

_PIECES = re.compile(rb"\x00\x00\x00?\x01")
"""The start codes between the units of a stream (ITU-T H.264, annex B)."""

_COMMENT = 6
"""The type of units with supplemental information. libx264 writes its settings into one, about 700 bytes of text."""


class H264(Tokenizer):
    """libx264 with the preset `medium`, 4:2:0, one stream per clip, from 0 (best) to 51 on its own scale.

    The stream has no container, and the comment in which libx264 lists its settings is removed, since it would be a
    large part of a short clip. One thread encodes, so that the bytes do not depend on the machine's cores.
    """

    def __init__(self, name: str, quality: int) -> None:
        self._quality = quality
        # 4:2:0 halves the resolution of colour, so sides must be even.
        self.spec = TokenizerSpec(name, "codec", multiple=2, modalities=("video",))

    def encode(self, images: Tensor) -> Tokens:
        clips = to_uint8(images).permute(0, 1, 3, 4, 2).cpu().numpy()
        return Tokens.from_bytes([self._encode(clip) for clip in clips])

    def _encode(self, clip: np.ndarray) -> bytes:
        import av

        file = io.BytesIO()
        with av.open(file, "w", format="h264") as container:
            options = {"crf": str(self._quality), "preset": "medium", "threads": "1"}
            stream = container.add_stream("libx264", rate=Fraction(25), options=options)
            stream.height, stream.width = clip.shape[1:3]
            stream.pix_fmt = "yuv420p"
            for frame in clip:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        units = [unit for unit in _PIECES.split(file.getvalue()) if unit and unit[0] & 31 != _COMMENT]
        return b"".join(b"\x00\x00\x01" + unit for unit in units)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        clips = np.stack([self._decode(file) for file in tokens.files])
        return from_uint8(torch.from_numpy(clips)).permute(0, 1, 4, 2, 3)

    def _decode(self, file: bytes) -> np.ndarray:
        import av

        with av.open(io.BytesIO(file), "r", format="h264") as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return np.stack(frames)


def load(name: str) -> H264:
    """Return the codec for a name such as `h264.q23`.

    Raises UsageError where the quality is malformed, AdapterError where PyAV or its libx264 is missing.
    """
    family, _, quality = name.partition(".")
    if not re.fullmatch(r"q([0-9]|[1-4][0-9]|5[01])", quality):
        raise UsageError(f"'{name}': the quality must be q0 to q51, as in {family}.q23")
    require_codec(name, "libx264")
    return H264(name, int(quality[1:]))


def require_codec(name: str, codec: str) -> None:
    """Raise AdapterError if PyAV is not installed, or was built without an encoder."""
    try:
        import av
    except ImportError as error:
        raise AdapterError(f"{name}: needs PyAV; pip install 'tokbench[video]'") from error
    if codec not in av.codec.codecs_available:
        raise AdapterError(f"{name}: this PyAV was built without {codec}; install the wheel of PyPI")
