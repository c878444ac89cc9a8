"""A small vision transformer that is pre-trained to predict EfficientNet-Lite0's dense features.

It replaces the pre-trained vision transformers (InternViT, DINO, CLIP) from which unified tokenizers start.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from tokbench.nn.losses import cosine
from tokbench.nn.teacher import DIM, SemanticTeacher
from tokbench.nn.trainable import Trainable, TrainingBatch, TrainingData
from tokbench.nn.vit import Patches, Shape, Transformer


class LayeredViT(nn.Module):
    """A vision transformer of patches whose features after each block can be read."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.patches, self.body = Patches(shape), Transformer(shape.width, shape.depth, shape.heads)

    def layers(self, images: Tensor) -> list[Tensor]:
        """Map images (B, 3, H, W) in [-1, 1] to the features (B, N, width) after each block, the last ones normed."""
        x, outputs = self.patches(images), []
        for block in self.body.blocks:
            x = block(x)
            outputs.append(x)
        return [*outputs[:-1], self.body.norm(x)]

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) in [-1, 1] to the last features (B, N, width)."""
        return self.layers(images)[-1]


class SemanticViT(Trainable):
    """Trains `vit` to predict a teacher's features of each patch (cosine distance) with a linear head.

    The head is not stored.
    """

    kept_out = ("head.",)

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape, self.vit = shape, LayeredViT(shape)

    def ready(self, device: str) -> None:
        self.head = nn.Linear(self.shape.width, DIM).to(device)

    def prepare_data(
        self, data: TrainingData, device: str, mirrored: bool, progress: Callable[[int, int], None]
    ) -> TrainingData:
        return SemanticTeacher(self.shape.side).features_of(data, device, progress)

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        assert batch.features is not None, "prepare_data adds the teacher's features"
        return {"semantic": cosine(self.head(self.vit(batch.images)), batch.features)}
