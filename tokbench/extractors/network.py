"""A frozen network that looks at images for metrics: one forward pass, named layers, chunks of a fixed size."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from tokbench.extractors.backend import Backend, Compiled

# Networks always see this many images (the last chunk is padded), so that no value depends on --batch-size:
# float32 kernels may round differently for different shapes.
CHUNK = 16

_GROUP = 2
"""Chunks that are handed to the backend at once: it then need not wait for the last part of each."""


class FeatureExtractor(ABC):
    """`network(images)` gives each wanted layer's features of images (B, 3, H, W) in [0, 1].

    name: the network's name in results. sha256: of its weights file. layers: those asked for so far; a forward pass
    stops after the deepest of them. input: which of several ways leads from images to its input; None for only one.
    """

    name: str
    sha256: str
    input: str | None = None
    code: str = ""
    """A hash of the code of a network of another package; that of tokbench's own is in the key of every cache."""
    stays: bool = False
    """Whether its features stay on the device; else they come to the CPU."""

    def __init__(self, backend: Backend | None = None) -> None:
        self.layers: set[str] = set()
        self.backend = backend or Backend()
        self._compiled: dict[tuple[object, ...], Compiled] = {}

    @property
    def precision(self) -> str:
        return self.backend.precision

    @property
    def key(self) -> str:
        """What tells its features from those of another instance."""
        return f"{self.name}/{self.sha256}/{self.input or ''}/{self.backend.key}{f'/{self.code}' if self.code else ''}"

    def told(self) -> dict[str, str]:
        """What a result must say of it."""
        told = {"network": self.name, "sha256": self.sha256, "backend": self.backend.name}
        if self.precision != "float32":
            told["precision"] = self.precision
        return told | ({"input": self.input} if self.input else {})

    def seeing(self, path: str) -> Self:
        """The same network, its weights shared, with another way to its input."""
        other = copy.copy(self)
        other.input, other.layers = path, set(self.layers)
        return other

    def request_layer(self, layer: str) -> None:
        """Ask for one layer more. Raises MissingWeights where the weights at hand do not reach it."""
        self.layers.add(layer)

    def chunk(self, height: int, width: int) -> int:
        """Images in one forward pass: fixed by their size alone, and fewer of large ones."""
        return max(1, CHUNK * 512**2 // max(512**2, height * width))

    @abstractmethod
    def forward(self, images: Tensor, chunk: int) -> dict[str, Tensor]:
        """Features by layer, each (B, ...), of images (B, 3, H, W) in [0, 1] on the CPU. B is a multiple of `chunk`."""

    def run(self, key: object, make: Callable[[], nn.Module], entered: Tensor, chunk: int) -> list[Tensor]:
        """The outputs of a module, compiled once for each `key` and shape of a chunk of its input."""
        if (found := (key, chunk, *entered.shape[1:])) not in self._compiled:
            self._compiled[found] = self.backend.compile(make().eval(), entered[:chunk])
        return self._compiled[found](entered)

    @torch.inference_mode()
    def __call__(self, images: Tensor, chunk: int | None = None) -> dict[str, Tensor]:
        """Features by layer, each float32 (B, ...), of images (B, 3, H, W) in [0, 1].

        `chunk`: images in one forward pass, where it is not to follow from their size.
        """
        found: dict[str, list[Tensor]] = {}
        size = chunk or self.chunk(images.shape[2], images.shape[3])
        for part in images.split(_GROUP * size):
            short = -len(part) % size
            padded = torch.cat([part, part[-1:].expand(short, -1, -1, -1)]) if short else part
            for layer, value in self.forward(padded, size).items():
                own = value[: len(part)]
                found.setdefault(layer, []).append(own if self.stays else own.cpu())
        return {layer: values[0] if len(values) == 1 else torch.cat(values) for layer, values in found.items()}
