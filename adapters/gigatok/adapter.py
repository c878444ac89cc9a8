"""gigatok: convolutions, then queries that look at their map, steered by a teacher (Xiong et al., arXiv:2504.08736)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.conv import ConvDecoder, ConvEncoder
from tokbench.nn.losses import cosine
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.tokenizer import BottleneckAutoencoder, LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import Shape, Transformer, learned, placed
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained, network

WIDTHS = (32, 64, 96)


class GigaTok(BottleneckAutoencoder):
    """A row of tokens whose queries start as averages over ever smaller parts of the map, coarse to fine.

    semantic: weight of 1 - cos between features of the decoder, after its first block, and a teacher's of the same
    patches; 0 is the ablated twin.
    """

    def __init__(
        self, shape: Shape, count: int, quantizer: VectorQuantizer, semantic: float, teacher: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        self.size, self.step, self.tokens = shape.size, shape.patch, count
        self.cells = _cells(count)
        self.semantic, self.teacher = semantic, teacher
        width = shape.width
        self.encoder, self.bottleneck = ConvEncoder(width, WIDTHS), quantizer
        self.positions, self.queries = placed(shape.side, width), learned(count, width)
        self.reader = Transformer(width, shape.depth, shape.heads, cross=True)
        self.squeezed, self.widened = nn.Linear(width, quantizer.dim), nn.Linear(quantizer.dim, width)
        self.places, self.asked = learned(count, width), placed(shape.side, width)
        self.painter = Transformer(width, shape.depth, shape.heads, cross=True)
        self.projected = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, 128))
        self.decoder = ConvDecoder(width, WIDTHS)
        self.side = shape.side

    def ready(self, device: str, adversary: float) -> None:
        super().ready(device, adversary)
        if self.semantic:
            self.helpers["teacher"] = self.teacher().to(device)

    def latents(self, images: Tensor) -> Tensor:
        grid = self.encoder(images)
        pooled = torch.cat([F.adaptive_avg_pool2d(grid, cells).flatten(2) for cells in self.cells], 2).transpose(1, 2)
        map_ = grid.flatten(2).transpose(1, 2) + self.positions
        return self.squeezed(self.reader(pooled + self.queries, context=map_))

    def painted(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the patches (B, N, width) after the first block of the decoder, and after the last."""
        context = self.widened(vectors) + self.places
        x = self.asked.expand(len(vectors), -1, -1)
        seen = []
        for block in self.painter.blocks:
            x = block(x, context=context)
            seen.append(x)
        return seen[0], self.painter.norm(x)

    def pixels(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        return self._image(self.painted(vectors)[1])

    def _image(self, features: Tensor) -> Tensor:
        return self.decoder(features.transpose(1, 2).unflatten(2, (self.side, self.side)))

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        vectors, own = self.squeeze(self.latents(batch.images), progress)
        early, last = self.painted(vectors)
        terms = self.compare(self._image(last), batch.images, progress) | {"bottleneck": own}
        if self.semantic:
            with torch.no_grad():
                target = self.helpers["teacher"](batch.images)
            terms["semantic"] = self.semantic * cosine(self.projected(early), target)
        return terms


def _cells(count: int) -> list[tuple[int, int]]:
    """Rows and columns of the parts that are averaged: 1, then 1, 2, 4 ... parts, `count` in all."""
    levels = [(1, 1)] + [(2 ** ((n + 1) // 2), 2 ** (n // 2)) for n in range(count.bit_length() - 1)]
    assert sum(rows * columns for rows, columns in levels) == count, "the number of tokens must be a power of two"
    return levels


def model(variant: AdapterConfig) -> GigaTok:
    given = variant.config["model"]
    return GigaTok(
        Shape(**given["shape"]), given["tokens"], VectorQuantizer(**given["quantizer"]), given["semantic"],
        partial(network, variant, "teacher"),
    )  # fmt: skip


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Raises MissingWeights where it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
