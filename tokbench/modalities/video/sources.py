"""Where clips come from: video files, rows of a Parquet file, and the synthetic sprites."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokbench.data.decode import MAX_PIXELS, open_rgb
from tokbench.data.sources.base import Source
from tokbench.errors import UnreadableImage, UsageError
from tokbench.modalities.sources import FileFolder, Rows
from tokbench.modalities.video import sprites

SUFFIXES = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".ogv", ".y4m")
"""Suffixes of video files."""

COLUMNS = ("frames", "fps")
"""The columns of a Parquet file of clips: a list of encoded frames, and frames a second."""

MAX_CLIP_PIXELS = 1 << 30
"""The largest number of pixels of a clip that is read into memory."""


@dataclass(frozen=True)
class Clip:
    """Frames, uint8 (T, h, w, 3), at `fps` frames a second.

    flow: float32 (T - 1, 2, h, w), where each pixel of frame t + 1 was in frame t, as the displacement (x, y) from
    there to here in pixels. visible: bool (T - 1, h, w), whether it was visible there. masks: uint8 (T, h, w), the
    number of the object at each pixel.
    """

    frames: np.ndarray
    fps: float
    flow: np.ndarray | None = None
    visible: np.ndarray | None = None
    masks: np.ndarray | None = None


class ClipSource(Source, ABC):
    """A source of clips."""

    @abstractmethod
    def clip(self, position: int, frames: int, stride: int) -> Clip:
        """Return the first `frames` frames, every `stride`-th one. Raises UnreadableImage if there are fewer."""


class VideoFiles(FileFolder, ClipSource):
    """One clip per video file, read by PyAV. The constructor raises UsageError if PyAV is not installed."""

    def __init__(self, path: Path) -> None:
        require_av()
        super().__init__(path, SUFFIXES)

    def clip(self, position: int, frames: int, stride: int) -> Clip:
        import av

        name, wanted = self.names[position], (frames - 1) * stride + 1
        found: list[np.ndarray] = []
        seen = 0
        try:
            with av.open(str(self.path(position)), metadata_errors="ignore") as container:
                if not container.streams.video:
                    raise UnreadableImage(f"{name}: it has no video stream")
                stream = container.streams.video[0]
                rate = float(stream.average_rate or stream.guessed_rate or 0)
                for frame in container.decode(stream):
                    if frame.width * frame.height > MAX_PIXELS or frame.width * frame.height * frames > MAX_CLIP_PIXELS:
                        raise UnreadableImage(f"{name}: frames of {frame.width}x{frame.height} px are too large")
                    if seen % stride == 0:
                        found.append(frame.to_ndarray(format="rgb24"))
                    seen += 1
                    if seen == wanted:
                        break
        except UnreadableImage:
            raise
        except (av.FFmpegError, OSError, ValueError) as error:
            raise UnreadableImage(f"{name}: it cannot be decoded as a video ({str(error)[:120]})") from error
        if seen < wanted:
            raise UnreadableImage(f"{name}: it has {seen} frames, but a clip needs {wanted}; use a protocol with fewer")
        if rate <= 0:
            raise UnreadableImage(f"{name}: it states no frame rate")
        if any(frame.shape != found[0].shape for frame in found):
            raise UnreadableImage(f"{name}: its frames have different sizes")
        return Clip(np.stack(found), rate / stride)

    def size(self, position: int) -> tuple[int, int]:
        import av

        name = self.names[position]
        try:
            with av.open(str(self.path(position)), metadata_errors="ignore") as container:
                if not container.streams.video:
                    raise UnreadableImage(f"{name}: it has no video stream")
                stream = container.streams.video[0]
                return stream.width, stream.height
        except (av.FFmpegError, OSError, ValueError) as error:
            raise UnreadableImage(f"{name}: it cannot be decoded as a video ({str(error)[:120]})") from error


def require_av() -> None:
    """Raise UsageError if PyAV is not installed."""
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "video and audio files are read by PyAV, which is not installed; pip install 'tokbench[video]'"
        ) from error


class ClipRows(Rows, ClipSource):
    """Clips in the rows of a Parquet file, as lists of encoded images."""

    def __init__(self, path: Path, where: dict[str, Any] | None = None, label: str | None = None) -> None:
        super().__init__(path, COLUMNS, where, label)

    def clip(self, position: int, frames: int, stride: int) -> Clip:
        row, name = self.row(position), self.names[position]
        files = row["frames"].as_py()
        wanted = (frames - 1) * stride + 1
        if len(files) < wanted:
            raise UnreadableImage(
                f"{name}: it has {len(files)} frames, but a clip needs {wanted}; use a protocol with fewer"
            )
        fps = float(row["fps"].as_py())
        if not fps > 0:
            raise UnreadableImage(f"{name}: fps = {fps:g} must be positive")
        images = [np.asarray(open_rgb(data, f"{name}, frame {i}")) for i, data in enumerate(files[:wanted:stride])]
        if any(image.shape != images[0].shape for image in images):
            raise UnreadableImage(f"{name}: its frames have different sizes")
        return Clip(np.stack(images), fps / stride)

    def size(self, position: int) -> tuple[int, int]:
        from PIL import Image

        files = self.row(position)["frames"].as_py()
        if not files:
            raise UnreadableImage(f"{self.names[position]}: it has no frames")
        try:
            return Image.open(io.BytesIO(files[0])).size
        except OSError as error:
            raise UnreadableImage(f"{self.names[position]}: its first frame is no image") from error


class Sprites(ClipSource):
    """The first `count` clips of a split of the synthetic sprites, drawn when they are read, with exact flow."""

    def __init__(self, split: str, count: int) -> None:
        sprites.check_split(split)
        self._split = split
        self.names = [f"{split}/{position:06d}" for position in range(count)]

    def clip(self, position: int, frames: int, stride: int) -> Clip:
        if stride != 1:
            raise UsageError("sprites have flow from each frame to the next; use a protocol with stride = 1")
        drawn = sprites.draw(sprites.make_scene(self._split, self._at(position)), frames)
        return Clip(drawn.frames, sprites.FPS, drawn.flow, drawn.visible, drawn.masks)

    def labels(self) -> dict[str, int]:
        scenes = (sprites.make_scene(self._split, self._at(i)) for i in range(len(self.names)))
        return {name: len(scene.sprites) - 1 for name, scene in zip(self.names, scenes, strict=True)}

    def read(self, position: int) -> bytes:
        return self.clip(position, sprites.FRAMES, 1).frames.tobytes()

    def size(self, position: int) -> tuple[int, int]:
        return sprites.SIDE, sprites.SIDE

    def listing(self) -> list[tuple[str, int]]:
        return [(f"sprites/{self._split}", len(self.names))]
