"""DISTS (Ding et al. 2020, arXiv:2004.07728): similarity of structure and texture in the channels of a VGG-16.

The published weights of the channels are in the wheel of `DISTS-pytorch`; the ImageNet trunk is that of LPIPS-VGG. Two
parts are separate for the same reason as in `tokbench.extractors.lpips`: the reference's activations are computed once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from tokbench.errors import MissingWeights, UsageError
from tokbench.extractors.backend import Backend
from tokbench.extractors.network import FeatureExtractor
from tokbench.weights.registry import KNOWN_WEIGHTS, LocalWeights, resolve
from tokbench.weights.state_dict import load_strict, read_state

LAYERS = ("0", "1", "2", "3", "4", "5")
CHANNELS = (3, 64, 128, 256, 512, 512)
_STAGES = ((0, 4), (5, 9), (10, 16), (17, 23), (24, 30))
"""The layers of torchvision's VGG-16 from after a pooling to the last ReLU before the next: relu1_2 to relu5_3."""

_C1 = _C2 = 1e-6
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class DISTSNetwork(FeatureExtractor):
    """Layers `0` to `5`: the image itself and the five activations (B, C, h, w) of a VGG-16 with L2 pooling.

    `distance` computes DISTS from the activations of two sets of images. They take as much memory as those of
    LPIPS-VGG: 32 MB for a 256 x 256 image. Images keep their size, while the authors' script brings larger ones to a
    shorter side of 256 pixels first.
    """

    stays = True
    smallest = 16
    """In smaller images, pooling leaves less than one pixel for each side."""

    def __init__(self, found: LocalWeights, backend: Backend | None = None) -> None:
        """found: torchvision's VGG-16. Raises MissingWeights where it lacks a convolution, or where the weights of the
        channels are not on this machine."""
        super().__init__(backend)
        self.name, self.sha256 = "dists", found.sha256
        self.layers.update(LAYERS)
        with torch.device("meta"):  # nothing is allocated or drawn from the random generator
            features = make_layers(cfgs["D"])
        # The last layer is a pooling without parameters, which DISTS does not use; a classifier is not used either.
        state = {name: value for name, value in read_state(self.name, found).items() if name.startswith("features.")}
        load_strict(self.name, nn.ModuleDict({"features": features}), state, found)
        self.trunk = _Trunk(features)
        channels = resolve("dists", KNOWN_WEIGHTS["dists-channels"])
        self.channels_sha256 = channels.sha256
        self.texture, self.structure = _channel_weights(channels)

    def describe(self) -> dict[str, str]:
        return super().describe() | {"channels_sha256": self.channels_sha256}

    def request_layer(self, layer: str) -> None:
        if layer not in LAYERS:
            raise UsageError(f"{self.name} has no layer '{layer}'; it has {', '.join(LAYERS)}")
        super().request_layer(layer)

    def forward(self, images: Tensor, chunk: int) -> dict[str, Tensor]:
        outputs = self.run("trunk", lambda: self.trunk, images, chunk)
        return dict(zip(LAYERS, (images.to(outputs[0].device), *outputs), strict=True))

    @torch.inference_mode()
    def distance(self, a: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
        """Return DISTS (B,) between two sets of B images, from the features that `network(images)` returned for each.

        It is 1 minus the weighted sum, over channels, of the similarity of the means (texture) and of the covariance
        (structure) of the two activations.
        """
        found = []
        for place in range(len(a["0"])):  # one image at a time: products of a batch would take as much memory again
            similarity = torch.zeros((), dtype=torch.float64)
            for layer, texture, structure in zip(LAYERS, self.texture, self.structure, strict=True):
                x, y = (side[layer][place].flatten(1) for side in (a, b))
                mean_x, mean_y = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
                x, y = x - mean_x, y - mean_y
                means = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
                spreads = x.square().mean(1) + y.square().mean(1)
                covariance = (2 * (x * y).mean(1) + _C2) / (spreads + _C2)
                similarity += (means[:, 0].cpu().double() @ texture) + (covariance.cpu().double() @ structure)
            found.append(1 - similarity)
        return torch.stack(found)


class _Trunk(nn.Module):
    """Maps (B, 3, H, W) in [0, 1] to the five activations."""

    mean: Tensor
    std: Tensor
    window: Tensor

    def __init__(self, features: nn.Sequential) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1))
        # Not in place, since each activation that is returned is also the input of the next stage.
        layers = [nn.ReLU() if isinstance(layer, nn.ReLU) else layer for layer in features]
        self.stages = nn.ModuleList(nn.Sequential(*layers[first:end]) for first, end in _STAGES)
        hann = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("window", torch.outer(hann, hann))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x, found = (x - self.mean) / self.std, []
        for place, stage in enumerate(self.stages):
            x = stage(self._pool(x) if place else x)
            found.append(x)
        return tuple(found)

    def _pool(self, x: Tensor) -> Tensor:
        """Return the square root of Hann-weighted means of squares, with stride 2."""
        channels = x.shape[1]
        window = self.window.expand(channels, 1, 3, 3)
        return (F.conv2d(x.square(), window, stride=2, padding=1, groups=channels) + 1e-12).sqrt()


def _channel_weights(found: LocalWeights) -> tuple[list[Tensor], list[Tensor]]:
    """Return the weights of texture and of structure for each layer, float64 (C,); all together they sum to 1.

    Raises MissingWeights where the file does not hold them.
    """
    state = read_state("dists", found)
    if {name: value.numel() for name, value in state.items()} != dict.fromkeys(("alpha", "beta"), sum(CHANNELS)):
        raise MissingWeights(f"dists: {found.path} does not hold alpha and beta; {found.source.get}")
    alpha, beta = (state[name].flatten().double() for name in ("alpha", "beta"))
    total = alpha.sum() + beta.sum()
    return list((alpha / total).split(CHANNELS)), list((beta / total).split(CHANNELS))
