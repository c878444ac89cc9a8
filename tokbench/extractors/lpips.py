"""LPIPS v0.1 (Zhang et al., CVPR 2018, arXiv:1801.03924), with the trunk and the distance in separate functions.

The `lpips` package provides the code and the linear heads; the ImageNet trunk comes from the weight file. The two parts
are separate because the reference's activations are the same for every tokenizer and are computed only once.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

import lpips
import torch
from torch import Tensor, nn

from tokbench.errors import MissingWeights, UsageError
from tokbench.extractors.backend import Backend
from tokbench.extractors.network import CHUNK, FeatureExtractor
from tokbench.weights.registry import LocalWeights
from tokbench.weights.state_dict import load_strict, read_state

LAYERS = ("0", "1", "2", "3", "4")


class LPIPSNetwork(FeatureExtractor):
    """Layers `0` to `4`: the trunk's five activations (B, C, h, w), each pixel's C values divided by their norm.

    `distance` computes LPIPS from the activations of two sets of images. Memory per 256 x 256 image in float32 is 2.6
    MB for AlexNet and 32 MB for VGG, which is 0.5 GB per side for a batch of 16; larger batches are not advisable for
    VGG. The input `unsigned` passes values in [0, 1] to the network, which was trained with [-1, 1].
    """

    input = "signed"
    stays = True

    def __init__(self, found: LocalWeights, backend: Backend | None = None, *, net: Literal["alex", "vgg"]) -> None:
        """Raises MissingWeights where the file does not hold every convolution of the trunk (`features.*`)."""
        super().__init__(backend)
        self.name, self.sha256 = f"lpips-{net}", found.sha256
        self.layers.update(LAYERS)
        # In smaller images a pooling layer would have no input: AlexNet 31 -> 7 -> 3 -> 1, VGG 16 -> 8 -> 4 -> 2 -> 1.
        self.smallest = 31 if net == "alex" else 16
        with torch.device("meta"), warnings.catch_warnings():  # on meta no random weights are drawn
            # lpips still calls torchvision with `pretrained=`.
            warnings.filterwarnings("ignore", category=UserWarning, module=r"torchvision\.models\._utils")
            model = lpips.LPIPS(net=net, version="0.1", pnet_rand=True, pretrained=False, verbose=False)
        trunk = read_state(self.name, found)
        # torchvision's "features.3.weight" is the package's "slice2.3.weight"; a classifier in the file is not used.
        layers = {index: layer for stage in model.net.children() for index, layer in stage.named_children()}
        named = nn.ModuleDict({"features": nn.ModuleDict(layers)})
        load_strict(self.name, named, {k: v for k, v in trunk.items() if k.startswith("features.")}, found)
        self.trunk = _Trunk(model.net)
        self.heads = _heads(net)

    def request_layer(self, layer: str) -> None:
        if layer not in LAYERS:
            raise UsageError(f"{self.name} has no layer '{layer}'; it has {', '.join(LAYERS)}")
        super().request_layer(layer)

    def forward(self, images: Tensor, chunk: int) -> dict[str, Tensor]:
        inputs = images if self.input == "unsigned" else images.mul(2).sub_(1)
        outputs = self.run("trunk", lambda: self.trunk, inputs, chunk)
        return dict(zip(LAYERS, outputs, strict=True))

    @torch.inference_mode()
    def distance(self, a: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
        """Return LPIPS (B,) between two sets of B images, from the features that `network(images)` returned for each.

        LPIPS is the sum over layers of the spatial mean of the squared difference, with channels weighted by the linear
        head.
        """
        total = torch.zeros(len(a["0"]), device=a["0"].device)
        # On a CPU one image at a time: the squares of a whole batch would take as much memory as its features.
        step = 1 if total.device.type == "cpu" else CHUNK
        for layer, head in zip(LAYERS, self.heads, strict=True):
            for start in range(0, len(total), step):
                span = slice(start, start + step)
                total[span] += (a[layer][span] - b[layer][span]).square().mean((2, 3)) @ head.to(total.device)
        return total.cpu()


class _Trunk(nn.Module):
    """Maps (B, 3, H, W) in the package's range [-1, 1] to the five normalised activations."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.scaling, self.net = lpips.ScalingLayer(), net

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(lpips.normalize_tensor(output) for output in self.net(self.scaling(x)))


def _heads(net: str) -> list[Tensor]:
    """Return the weights (C,) of the package's five linear heads, which are all non-negative. Raises MissingWeights."""
    path = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{net}.pth"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return [state[f"lin{layer}.model.1.weight"].flatten() for layer in LAYERS]
    except (OSError, KeyError) as error:
        raise MissingWeights(
            f"lpips-{net}: the lpips package lacks {path} ({error}); pip install 'lpips>=0.1.4'"
        ) from error
