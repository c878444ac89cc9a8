"""The FID network: Inception-v3 as published for TensorFlow on 2015-12-05, in torch-fidelity's port.

It is used by FID (Heusel et al., NeurIPS 2017), the Inception Score (Salimans et al., NeurIPS 2016) and sFID (Nash et
al., ICML 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch_fidelity import feature_extractor_inceptionv3 as port

from tokbench.errors import MissingWeights, UsageError
from tokbench.extractors.backend import Backend
from tokbench.extractors.network import FeatureExtractor
from tokbench.protocol.rounding import levels
from tokbench.weights.registry import KNOWN_WEIGHTS, LocalWeights
from tokbench.weights.state_dict import fold_batch_norm, load_strict, read_state

SIZE = 299
SFID_CHANNELS = 7

BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "Conv2d_1a_3x3": lambda: port.BasicConv2d(3, 32, kernel_size=3, stride=2),
    "Conv2d_2a_3x3": lambda: port.BasicConv2d(32, 32, kernel_size=3),
    "Conv2d_2b_3x3": lambda: port.BasicConv2d(32, 64, kernel_size=3, padding=1),
    "Conv2d_3b_1x1": lambda: port.BasicConv2d(64, 80, kernel_size=1),
    "Conv2d_4a_3x3": lambda: port.BasicConv2d(80, 192, kernel_size=3),
    "Mixed_5b": lambda: port.InceptionA(192, pool_features=32),
    "Mixed_5c": lambda: port.InceptionA(256, pool_features=64),
    "Mixed_5d": lambda: port.InceptionA(288, pool_features=64),
    "Mixed_6a": lambda: port.InceptionB(288),
    "Mixed_6b": lambda: port.InceptionC(768, channels_7x7=128),
    "Mixed_6c": lambda: port.InceptionC(768, channels_7x7=160),
    "Mixed_6d": lambda: port.InceptionC(768, channels_7x7=160),
    "Mixed_6e": lambda: port.InceptionC(768, channels_7x7=192),
    "Mixed_7a": lambda: port.InceptionD(768),
    "Mixed_7b": lambda: port.InceptionE_1(1280),
    "Mixed_7c": lambda: port.InceptionE_2(2048),
    "fc": lambda: nn.Linear(2048, 1008),
}
"""The blocks of the network in order, with the names in the weight file."""

ENDS = {
    "64": "Conv2d_2b_3x3",
    "192": "Conv2d_4a_3x3",
    "sfid": "Mixed_6d",
    "768": "Mixed_6e",
    "2048": "Mixed_7c",
    "logits_unbiased": "fc",
}
"""Each feature layer and the last block that it needs."""

_ORDER = list(BLOCKS)


class Inception(FeatureExtractor):
    """Layers `64`, `192`, `768`, `2048`: spatial means of the activations with that many channels, (B, channels).

    `sfid`: (B, 2023), the first 7 channels of Mixed_6d's 1x1 branch after its ReLU, 17 x 17, in ADM's order (rows,
    columns, channels). `logits_unbiased`: (B, 1008), the 2048-d features times the last layer's weights without its
    bias, as is usual for the Inception Score.

    `input` selects how images are mapped to the network's 299 x 299 input (see `tokbench.protocol.protocol.InputPath`).
    """

    input = "tf1"

    def __init__(self, found: LocalWeights, backend: Backend | None = None) -> None:
        """Raises MissingWeights where a block in the file is not exactly as expected. The file may lack the last
        blocks."""
        super().__init__(backend)
        self.name, self.sha256, self.path = "inception-2015-12-05", found.sha256, found.path
        state = read_state(self.name, found)
        blocks = {key.partition(".")[0] for key in state}
        with torch.device("meta"):  # nothing is allocated or drawn from the random generator
            self.blocks = nn.ModuleDict({name: make() for name, make in BLOCKS.items() if name in blocks})
        load_strict(self.name, self.blocks, state, found)
        for unit in [module for module in self.blocks.modules() if isinstance(module, port.BasicConv2d)]:
            fold_batch_norm(unit.conv, unit.bn)
            unit.bn = nn.Identity()

    def request_layer(self, layer: str) -> None:
        """Request a layer. Raises MissingWeights where the file lacks a block that it needs, UsageError for an unknown
        layer."""
        if layer not in ENDS:
            raise UsageError(f"{self.name} has no layer '{layer}'; it has {', '.join(ENDS)}")
        needed = _ORDER[: _ORDER.index(ENDS[layer]) + 1]
        if missing := [block for block in needed if block not in self.blocks]:
            full = KNOWN_WEIGHTS[self.name][0]
            raise MissingWeights(
                f"{self.name}: layer {layer} needs {', '.join(missing)}, which {self.path.name} does not hold; get "
                f"the full {full.file} from {full.get} ({full.url}) and run 'tokbench weights add FILE'",
                public_reason=f"{self.name}: layer {layer} needs blocks that {self.path.name} does not hold",
            )
        super().request_layer(layer)

    def forward(self, images: Tensor, chunk: int) -> dict[str, Tensor]:
        layers = tuple(layer for layer in ENDS if layer in self.layers)
        if not layers:
            return {}
        inputs = _INPUT[self.input](images.to(self.backend.device))
        outputs = self.run(layers, lambda: _Layers(self.blocks, layers), inputs, chunk)
        return dict(zip(layers, outputs, strict=True))


class _Layers(nn.Module):
    """Maps (B, 3, 299, 299) to the features of `layers`, in that order, through the blocks up to the deepest layer."""

    def __init__(self, blocks: nn.ModuleDict, layers: tuple[str, ...]) -> None:
        super().__init__()
        self.blocks, self._layers = blocks, layers

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        features: dict[str, Tensor] = {}
        depth = max(_ORDER.index(ENDS[layer]) for layer in self._layers)
        for name in _ORDER[: depth + 1]:
            if name == "Mixed_6d" and "sfid" in self._layers:
                features["sfid"] = self._spatial(x)
            if name == "fc":
                features["logits_unbiased"] = features["2048"] @ self.blocks.get_parameter("fc.weight").T
                continue
            x = self.blocks[name](x)
            if name in ("Conv2d_2b_3x3", "Conv2d_4a_3x3"):
                x = F.max_pool2d(x, kernel_size=3, stride=2)
            for layer in ("64", "192", "768", "2048"):
                if ENDS[layer] == name:
                    features[layer] = x.mean((2, 3))
        return tuple(features[layer] for layer in self._layers)

    def _spatial(self, x: Tensor) -> Tensor:
        """Return the sFID features (B, 2023) from Mixed_6d's input. Only 7 of 192 channels are computed."""
        weight, bias = (self.blocks.get_parameter(f"Mixed_6d.branch1x1.conv.{part}") for part in ("weight", "bias"))
        maps = F.relu(F.conv2d(x, weight[:SFID_CHANNELS], bias[:SFID_CHANNELS]))
        return maps.permute(0, 2, 3, 1).flatten(1)


def _tf1(images: Tensor) -> Tensor:
    """Prepare images as TensorFlow's graph, torch-fidelity and ADM do: (x - 128) / 128 for x from 0 to 255."""
    return resize_like_tensorflow1(images * (255 / 128), SIZE).sub_(1)


def _half_pixel(images: Tensor) -> Tensor:
    """Prepare images as pytorch-fid does."""
    return 2 * F.interpolate(images, (SIZE, SIZE), mode="bilinear", align_corners=False) - 1


def _clean(images: Tensor) -> Tensor:
    """Prepare images as clean-fid does in its mode `clean` (Parmar et al., CVPR 2022): Pillow's antialiased bicubic,
    not rounded."""
    planes = levels(images, torch.float32).cpu().flatten(0, 1).numpy()
    resized = [Image.fromarray(plane).resize((SIZE, SIZE), Image.Resampling.BICUBIC) for plane in planes]
    stacked = torch.from_numpy(np.stack([np.asarray(plane) for plane in resized])).unflatten(0, (-1, 3))
    return (stacked.clamp(0, 255).to(images.device) - 128) / 128


_INPUT: dict[str | None, Callable[[Tensor], Tensor]] = {"tf1": _tf1, "half-pixel": _half_pixel, "clean": _clean}


def resize_like_tensorflow1(images: Tensor, size: int) -> Tensor:
    """Resize (B, C, H, W) to (B, C, size, size) bilinearly as TensorFlow 1 does without align_corners.

    Output pixel i samples input position i * H / size, without half-pixel centres or antialiasing. The values equal
    those of torch_fidelity.interpolate_compat_tensorflow up to the last bits. Two matrix products take a fifth of the
    time of gathering.
    """
    rows, columns = (_weights(length, size).to(images.device) for length in images.shape[2:])
    return rows @ (images @ columns.T)


@cache
def _weights(length: int, size: int) -> Tensor:
    """Return the matrix (size, length) of the weight of each input position in each output position."""
    positions = torch.arange(size, dtype=torch.float32) * torch.tensor(length / size, dtype=torch.float32)
    low = positions.long()
    matrix, right = torch.zeros(size, length), positions - low
    matrix.scatter_(1, low[:, None], 1 - right[:, None])
    return matrix.scatter_add_(1, (low + 1).clamp_max(length - 1)[:, None], right[:, None])
