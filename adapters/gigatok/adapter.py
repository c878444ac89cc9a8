"""gigatok: a hybrid CNN-transformer 1D tokenizer with semantic regularisation (Xiong et al., arXiv:2504.08736)."""

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
from tokbench.nn.vit import Shape, Transformer, random_parameter, sincos_positions
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained, network

WIDTHS = (32, 64, 96)


class GigaTok(BottleneckAutoencoder):
    """A 1D tokenizer whose queries are initialised with averages over parts of the feature map, coarse to fine.

    semantic: weight of the semantic regularisation, 1 - cosine similarity of a teacher's patch features and the
    features after the first block of the decoder; 0 is the ablation.
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
        self.positions, self.queries = sincos_positions(shape.side, width), random_parameter(count, width)
        self.reader = Transformer(width, shape.depth, shape.heads, cross=True)
        self.squeezed, self.widened = nn.Linear(width, quantizer.dim), nn.Linear(quantizer.dim, width)
        self.places, self.asked = random_parameter(count, width), sincos_positions(shape.side, width)
        self.painter = Transformer(width, shape.depth, shape.heads, cross=True)
        self.projected = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, 128))
        self.decoder = ConvDecoder(width, WIDTHS)
        self.side = shape.side

    def ready(self, device: str) -> None:
        super().ready(device)
        if self.semantic:
            self.helpers["teacher"] = self.teacher().to(device)

    def encoded(self, images: Tensor) -> Tensor:
        grid = self.encoder(images)
        pooled = torch.cat([F.adaptive_avg_pool2d(grid, cells).flatten(2) for cells in self.cells], 2).transpose(1, 2)
        keys = grid.flatten(2).transpose(1, 2) + self.positions
        return self.squeezed(self.reader(pooled + self.queries, context=keys))

    def decoder_features(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the decoder's patch features (B, N, width) after the first block and after the last."""
        context = self.widened(vectors) + self.places
        x = self.asked.expand(len(vectors), -1, -1)
        outputs = []
        for block in self.painter.blocks:
            x = block(x, context=context)
            outputs.append(x)
        return outputs[0], self.painter.norm(x)

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        return self._image(self.decoder_features(vectors)[1])

    def _image(self, features: Tensor) -> Tensor:
        return self.decoder(features.transpose(1, 2).unflatten(2, (self.side, self.side)))

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        vectors, own = self.squeeze(self.latents(batch.images), progress)
        early, last = self.decoder_features(vectors)
        terms = self.compare(self._image(last), batch.images, progress) | {"bottleneck": own}
        if self.semantic:
            with torch.no_grad():
                target = self.helpers["teacher"](batch.images)
            terms["semantic"] = self.semantic * cosine(self.projected(early), target)
        return terms


def _cells(count: int) -> list[tuple[int, int]]:
    """Return rows and columns of the pooling grids, which have 1, 1, 2, 4, ... cells, `count` in total."""
    levels = [(1, 1)] + [(2 ** ((n + 1) // 2), 2 ** (n // 2)) for n in range(count.bit_length() - 1)]
    assert sum(rows * columns for rows, columns in levels) == count, "the number of tokens must be a power of two"
    return levels


def model(variant: AdapterConfig) -> GigaTok:
    """Build the untrained model that a TOML file describes."""
    given = variant.config["model"]
    return GigaTok(
        Shape(**given["shape"]), given["tokens"], VectorQuantizer(**given["quantizer"]), given["semantic"],
        partial(network, variant, "teacher"),
    )  # fmt: skip


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
