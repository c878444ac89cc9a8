"""A frozen teacher of semantic features: EfficientNet-Lite0, whose ImageNet weights are part of a Python package.

It replaces DINOv2 and CLIP, whose weights are not available here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.io.hashing import code_of
from tokbench.nn.encoded import encode_images
from tokbench.nn.frozen_network import efficientnet
from tokbench.nn.shortcut import components
from tokbench.nn.trainable import TrainingData
from tokbench.weights.hashing import hash_module

CHANNELS = 112
"""Number of channels of the fifth stage, the last one with a stride of 16 px."""

DIM = 64
"""Default number of values per position."""

_STRIDE = 16

FITTED_ON = 2048
"""Number of images on which the projection is fitted."""


class SemanticTeacher(nn.Module):
    """Dense features of images on a grid of `side` x `side` positions, reduced to `dim` values.

    Images are enlarged to 16 px per position (bilinear), and the features are those at the end of the fifth stage, 112
    values per position. The projection is a principal component analysis of the training images' features, so features
    are centred and have decreasing variances.
    """

    mean: Tensor
    directions: Tensor

    def __init__(self, side: int, dim: int = DIM) -> None:
        """Raises ValueError if `dim` exceeds the number of channels."""
        super().__init__()
        if dim > CHANNELS:
            raise ValueError(f"the teacher has {CHANNELS} channels, so dim cannot be {dim}")
        self.side, self.dim = side, dim
        self.register_buffer("mean", torch.zeros(CHANNELS))
        self.register_buffer("directions", torch.eye(CHANNELS, dim))
        self.net: nn.Module | None = None

    def prepare(self, device: str) -> None:
        """Load the network. Raises MissingWeights if the package with the weights is not installed."""
        self.net = efficientnet(device)
        self.to(device)

    def stage(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) in [0, 1] to unprojected features (B, side * side, 112)."""
        assert self.net is not None, "prepare() loads the network"
        larger = F.interpolate(images, size=_STRIDE * self.side, mode="bilinear", align_corners=False)
        larger = ((larger * 255 - 127) / 128).contiguous(memory_format=torch.channels_last)
        return self.net.stages(larger)[-1].float().flatten(2).transpose(1, 2)  # type: ignore[operator]

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) in [0, 1] to features (B, side * side, dim)."""
        return (self.stage(images) - self.mean) @ self.directions

    @torch.no_grad()
    def fit(self, pixels: Tensor, device: str) -> None:
        """Fit the projection to images uint8 (N, 3, H, W)."""
        features = torch.cat([self.stage(part.to(device).float() / 255).flatten(0, 1) for part in pixels.split(64)])
        self.mean.copy_(features.mean(0))
        self.directions.copy_(components(features - self.mean, self.dim, 1))

    def features_of(self, data: TrainingData, device: str, progress: Callable[[int, int], None]) -> TrainingData:
        """Return the training set with the features of all images, float16 (N, side * side, dim), cached."""
        self.prepare(device)
        spread = torch.linspace(0, len(data) - 1, min(FITTED_ON, len(data))).long()
        self.fit(data.pixels[spread.to(data.pixels.device)], device)
        assert self.net is not None
        identity = ("teacher", str(self.side), str(self.dim), hash_module(self.net), code_of(Path(__file__)))
        encoded = encode_images(
            f"efficientnet-lite0-{self.side}x{self.side}x{self.dim}", identity, lambda x: self(x).half(), data, device,
            mirrored=False, progress=progress,
        )  # fmt: skip
        return replace(data, features=encoded[0])


CLASSES, CLASS_SIDE = 1000, 160
"""Number of classes of the teacher, and the side in px to which images are enlarged for its logits.

The network named 39, 47 and 40 % of training images of Tiny-ImageNet right, among its 200 classes, at 128, 160 and 224
px.
"""


def with_teacher_logits(data: TrainingData, device: str, progress: Callable[[int, int], None]) -> TrainingData:
    """Return the training set with EfficientNet-Lite0's logits of all images as features, float16 (N, 1, 1000), cached.

    The logits of a mirrored image are those of the image. Raises MissingWeights if the package with the weights is not
    installed.
    """
    net = efficientnet(device)

    def encode(images: Tensor) -> Tensor:
        larger = F.interpolate(images, CLASS_SIDE, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        logits: Tensor = net._fc(net(((larger * 255 - 127) / 128).contiguous(memory_format=torch.channels_last)))
        return logits[:, None].half()

    identity = ("logits", str(CLASS_SIDE), hash_module(net), code_of(Path(__file__)))
    encoded = encode_images(f"efficientnet-lite0-logits-{CLASS_SIDE}", identity, encode, data, device, False, progress)
    return replace(data, features=encoded[0])
