"""VideoDataset: clips under one protocol, and how they are opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokbench.data.dataset import Dataset
from tokbench.data.preprocess import prepare
from tokbench.errors import UnreadableImage
from tokbench.metric_names import Modality
from tokbench.modalities.dataset import Item, MediaDataset
from tokbench.modalities.video.sources import ClipSource


@dataclass
class VideoDataset(MediaDataset):
    """Clips (T, 3, H, W), whose frames are prepared as the protocol prepares images.

    size: the side of a frame in pixels. Batches have the extras `rates` (frames a second) and, if the data have them,
    `flow`, `visible` and `masks` (`tokbench.modalities.video.sources.Clip`).
    """

    modality: ClassVar[Modality] = "video"

    def check_sizes(self) -> None:
        Dataset.check_sizes(self)

    def item(self, position: int) -> Item:
        source, rules = self.source, self.protocol.video
        assert isinstance(source, ClipSource)
        clip = source.clip(position, rules.frames, rules.stride)
        height, width = clip.frames.shape[1:3]
        if self.common_size is not None and (width, height) != self.common_size:
            raise UnreadableImage(
                f"{source.names[position]}: {width}x{height} px, but the others have {self.common_size[0]}x"
                f"{self.common_size[1]}; remove it, or give --size S to bring all to S x S"
            )
        from PIL import Image

        prepared = [prepare(Image.fromarray(frame), self.size, self.protocol) for frame in clip.frames]
        frames = np.stack([pixels for pixels, _ in prepared])
        if frames.dtype != np.uint8:
            frames = (frames / np.float32(255)).astype(np.float32)
        extra = {"rates": np.asarray(clip.fps)}
        if frames.shape[1:3] == (height, width):  # exact only on the frames as they were drawn
            exact = {"flow": clip.flow, "visible": clip.visible, "masks": clip.masks}
            extra |= {name: array for name, array in exact.items() if array is not None}
        return Item(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)), extra, any(up for _, up in prepared))
