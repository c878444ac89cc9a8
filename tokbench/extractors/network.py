"""The interface of a frozen image network: one forward pass, named layers, chunks of a fixed size."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from tokbench.extractors.backend import Backend, Compiled

# Every forward pass has this number of images (the last chunk is padded), so that no value depends on --batch-size:
# float32 kernels may round differently for different shapes.
CHUNK = 16

_CHUNKS_PER_CALL = 2
"""The number of chunks that are passed to the backend at once, which reduces the time that it waits between chunks."""


class FeatureExtractor(ABC):
    """`network(images)` returns the features of each requested layer for images (B, 3, H, W) in [0, 1].

    name: the network's name in results. sha256: the hash of its weights file. layers: the layers requested so far; a
    forward pass stops after the deepest of them. input: which way of preparing the input is used; None where there is
    only one.
    """

    name: str
    sha256: str
    input: str | None = None
    code: str = ""
    """A hash of the code, for networks of other packages. The hash of tokbench's code is part of every cache key."""
    stays: bool = False
    """Whether features stay on the device rather than being moved to the CPU."""

    def __init__(self, backend: Backend | None = None) -> None:
        self.layers: set[str] = set()
        self.backend = backend or Backend()
        self._compiled: dict[tuple[object, ...], Compiled] = {}

    @property
    def precision(self) -> str:
        return self.backend.precision

    @property
    def key(self) -> str:
        """A string that differs between two instances whose features can differ."""
        return f"{self.name}/{self.sha256}/{self.input or ''}/{self.backend.key}{f'/{self.code}' if self.code else ''}"

    def describe(self) -> dict[str, str]:
        """Return what a result records about the network."""
        facts = {"network": self.name, "sha256": self.sha256, "backend": self.backend.name}
        if self.precision != "float32":
            facts["precision"] = self.precision
        return facts | ({"input": self.input} if self.input else {})

    def with_input(self, input_path: str) -> Self:
        """Return the network with another way of preparing its input. The weights are shared."""
        other = copy.copy(self)
        other.input, other.layers = input_path, set(self.layers)
        return other

    def request_layer(self, layer: str) -> None:
        """Request a layer. Raises MissingWeights where the weight file does not contain it, UsageError for an unknown
        layer."""
        self.layers.add(layer)

    def chunk(self, height: int, width: int) -> int:
        """Return the number of images per forward pass, which depends on their size only and is smaller for large
        images."""
        return max(1, CHUNK * 512**2 // max(512**2, height * width))

    @abstractmethod
    def forward(self, images: Tensor, chunk: int) -> dict[str, Tensor]:
        """Return features by layer, each (B, ...), of images (B, 3, H, W) in [0, 1] on the CPU. B is a multiple of
        `chunk`."""

    def run(self, key: object, make: Callable[[], nn.Module], inputs: Tensor, chunk: int) -> list[Tensor]:
        """Return the outputs of a module, which is compiled once for each `key` and shape of an input chunk."""
        if (signature := (key, chunk, *inputs.shape[1:])) not in self._compiled:
            self._compiled[signature] = self.backend.compile(make().eval(), inputs[:chunk])
        return self._compiled[signature](inputs)

    @torch.inference_mode()
    def __call__(self, images: Tensor, chunk: int | None = None) -> dict[str, Tensor]:
        """Return features by layer, each float32 (B, ...), of images (B, 3, H, W) in [0, 1].

        chunk: the number of images per forward pass; by default it depends on their size.
        """
        features: dict[str, list[Tensor]] = {}
        size = chunk or self.chunk(images.shape[2], images.shape[3])
        for part in images.split(_CHUNKS_PER_CALL * size):
            missing = -len(part) % size
            padded = torch.cat([part, part[-1:].expand(missing, -1, -1, -1)]) if missing else part
            for layer, value in self.forward(padded, size).items():
                values = value[: len(part)]
                features.setdefault(layer, []).append(values if self.stays else values.cpu())
        return {layer: values[0] if len(values) == 1 else torch.cat(values) for layer, values in features.items()}
