"""I3D networks of the Fréchet video distance, which users provide as TorchScript files.

Two conventions are in use, whose numbers cannot be compared with each other:

    styleganv   the file of StyleGAN-V (arXiv:2112.14683) takes levels in [0, 255] and resizes and scales them itself
    tats        TATS (arXiv:2204.03638) and VideoGPT stretch frames to 224 x 224 (bilinear, without antialiasing) and
                scale them to [-1, 1]

Both return the 400 values before the softmax.
"""

from __future__ import annotations

import warnings
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.errors import MissingWeights, UsageError
from tokbench.extractors.backend import Backend
from tokbench.extractors.network import FeatureExtractor
from tokbench.weights.registry import LocalWeights

CLIPS = 4
"""The number of clips per forward pass."""

SIDE = 224
"""The side in pixels to which TATS stretches frames."""

MIN_FRAMES = 9
"""The smallest number of frames: the network pools time three times, so shorter clips have no output."""


class I3D(FeatureExtractor):
    """Layer `logits`: the vectors (B, 400) of clips (B, T, 3, H, W) in [0, 1]. It runs in PyTorch and float32.

    A TorchScript file is a program: use only files whose author you trust.
    """

    def __init__(
        self, found: LocalWeights, backend: Backend | None = None, *, convention: Literal["styleganv", "tats"]
    ) -> None:
        """Raises MissingWeights if the file is not TorchScript."""
        super().__init__(Backend((backend or Backend()).device, library="torch"))
        self.name, self.sha256, self._convention = f"i3d-{convention}", found.sha256, convention
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # PyTorch deprecates the format, which users still have
                self.net = torch.jit.load(found.path, map_location=self.backend.device).eval()
        except (RuntimeError, ValueError, OSError) as error:
            raise MissingWeights(
                f"{self.name}: {found.path} is not a TorchScript file ({' '.join(str(error).split())[:120]}); see "
                "docs/video.md"
            ) from error

    def request_layer(self, layer: str) -> None:
        if layer != "logits":
            raise UsageError(f"{self.name} has no layer '{layer}'; it has logits")
        super().request_layer(layer)

    @torch.inference_mode()
    def __call__(self, images: Tensor, chunk: int | None = None) -> dict[str, Tensor]:
        """Return features by layer of clips (B, T, 3, H, W) in [0, 1].

        Raises MissingWeights for clips that are too short, or if the network does not return one vector per clip.
        """
        if images.shape[1] < MIN_FRAMES:
            raise MissingWeights(f"{self.name}: clips of {images.shape[1]} frames are too short; it needs {MIN_FRAMES}")
        return {"logits": torch.cat([self.forward(part, CLIPS)["logits"] for part in images.split(chunk or CLIPS)])}

    def forward(self, images: Tensor, chunk: int) -> dict[str, Tensor]:
        if self._convention == "styleganv":
            clips = (images * 255).transpose(1, 2).to(self.backend.device)
            found = self.net(clips, rescale=True, resize=True, return_features=True)
        else:
            frames = F.interpolate(images.flatten(0, 1), (SIDE, SIDE), mode="bilinear", align_corners=False)
            clips = frames.unflatten(0, images.shape[:2]).transpose(1, 2)
            found = self.net((2 * clips - 1).to(self.backend.device))
        if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != len(images):
            given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise MissingWeights(f"{self.name}: it returns {given} for {len(images)} clips, not one vector each")
        return {"logits": found.float().cpu()}
