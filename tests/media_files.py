"""Builders of clips, recordings and meshes as files, and of batches of them."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from image_files import encode
from PIL import Image
from torch import Tensor

from tokbench.metrics.batch import Batch


def moving_square(frames: int = 16, side: int = 32) -> np.ndarray:
    """A clip, uint8 (T, side, side, 3): a bright square that moves by one pixel a frame over a gradient."""
    clip = np.empty((frames, side, side, 3), np.uint8)
    clip[:] = np.linspace(40, 120, side)[None, None, :, None]
    for time in range(frames):
        clip[time, 8:16, 4 + time % 12 : 12 + time % 12] = (220, 180, 60)
    return clip


def write_video(path: Path, clip: np.ndarray, fps: int = 10) -> None:
    """Write a clip as an H.264 file."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": "5"})
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_clips(path: Path, clips: list[np.ndarray], splits: list[str]) -> None:
    """Write a Parquet file of clips with the columns frames, fps and split."""
    frames = [[encode(Image.fromarray(frame)) for frame in clip] for clip in clips]
    pq.write_table(pa.table({"frames": frames, "fps": [10.0] * len(clips), "split": splits}), path)


def wave(seconds: float = 0.5, rate: int = 8000, pitch: float = 440.0) -> np.ndarray:
    """A tone, float32 (N,)."""
    return (0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def audio_bytes(samples: np.ndarray, rate: int = 8000, kind: str = "WAV") -> bytes:
    """An audio file of samples (N,) or (N, C)."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype="PCM_16")
    return file.getvalue()


CUBE = """v 0 0 0
v 1 0 0
v 1 1 0
v 0 1 0
v 0 0 1
v 1 0 1
v 1 1 1
v 0 1 1
f 1 2 3
f 1 3 4
f 5 6 7
f 5 7 8
f 1 2 6
f 1 6 5
f 2 3 7
f 2 7 6
f 3 4 8
f 3 8 7
f 4 1 5
f 4 5 8
"""
"""An OBJ file of a cube."""


def media_batch(reference: Tensor, image: Tensor, **extra: Any) -> Batch:
    """A batch of items and outputs in [0, 1]."""
    count = len(reference)
    return Batch(torch.arange(count), reference, image, extra={k: torch.as_tensor(v) for k, v in extra.items()})
