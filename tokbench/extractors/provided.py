"""Networks whose weights users provide, as safetensors or exported as TorchScript: DINOv2 and CLIP."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.errors import MissingWeights, UsageError
from tokbench.extractors.backend import Backend
from tokbench.extractors.network import FeatureExtractor
from tokbench.extractors.vit import SHAPES, ViT, rename
from tokbench.weights.registry import LocalWeights
from tokbench.weights.state_dict import load_strict, read_state

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""The channel means and standard deviations of ImageNet, with which DINOv2 was trained."""
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""Those of CLIP's training images."""
NORMS = {"imagenet": IMAGENET, "clip": CLIP}


class ProvidedNetwork(FeatureExtractor):
    """Layer `features`: the vectors (B, D) that a network returns for normalised images (B, 3, side, side).

    A .safetensors file holds the weights of `tokbench.extractors.vit`; any other file is a TorchScript module, which
    is a program: use only files whose author you trust. The whole image is resized to side x side (bicubic with
    antialiasing, clamped to [0, 1]); it is not cropped, since the evaluated images are crops already. The network
    always runs in PyTorch and float32.
    """

    def __init__(
        self, found: LocalWeights, backend: Backend | None = None, *, network: str, side: int, norm: str
    ) -> None:
        """network: a key of SHAPES. norm: a key of NORMS. Raises MissingWeights if the file holds something else."""
        super().__init__(Backend((backend or Backend()).device, library="torch"))
        self.name, self.sha256, self._side = network, found.sha256, side
        self._mean, self._std = (torch.tensor(values).view(3, 1, 1) for values in NORMS[norm])
        net = _load_vit(network, found) if found.path.suffix == ".safetensors" else _load_script(network, found)
        self.net = net.to(self.backend.device).eval()

    def request_layer(self, layer: str) -> None:
        if layer != "features":
            raise UsageError(f"{self.name} has no layer '{layer}'; it has features")
        super().request_layer(layer)

    def describe(self) -> dict[str, str]:
        return super().describe() | {"size": str(self._side)}

    def forward(self, images: Tensor, chunk: int) -> dict[str, Tensor]:
        size = (self._side, self._side)
        parts = []
        for part in images.split(chunk):
            if part.shape[-2:] != size:
                part = F.interpolate(part, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
            found = self.net(((part - self._mean) / self._std).to(self.backend.device))
            if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != len(part):
                given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise MissingWeights(
                    f"{self.name}: the exported network returns {given} for {len(part)} images, not one vector for each"
                )
            parts.append(found.float())
        return {"features": torch.cat(parts)}


def _load_vit(network: str, found: LocalWeights) -> nn.Module:
    with torch.device("meta"):  # nothing is allocated or drawn from the random generator
        net = ViT(SHAPES[network])
    load_strict(network, net, rename(read_state(network, found)), found)
    return net


def _load_script(network: str, found: LocalWeights) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PyTorch deprecates the format, which users still have
            script: nn.Module = torch.jit.load(found.path, map_location="cpu")
    except (RuntimeError, ValueError, OSError) as error:
        raise MissingWeights(
            f"{network}: {found.path} is not a TorchScript file ({' '.join(str(error).split())[:120]}); export the "
            "network as docs/weights.md describes"
        ) from error
    return script
