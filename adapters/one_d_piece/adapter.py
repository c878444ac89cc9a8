"""one_d_piece: a row of tokens of which any first ones will do (Miwa et al., One-D-Piece, arXiv:2501.10064)."""

from __future__ import annotations

from torch import Tensor

from tokbench.nn.autoencoders import QueryAutoencoder
from tokbench.nn.nested_dropout import tail_drop
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import Shape
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained


class OneDPiece(QueryAutoencoder):
    """TiTok, but the decoder gets only the first k quantized tokens in training, k drawn anew for each batch."""

    def __init__(self, shape: Shape, count: int, quantizer: VectorQuantizer, drop: bool) -> None:
        super().__init__(shape, count, quantizer)
        self.drop = drop

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        vectors, own = self.squeeze(self.latents(batch.images), progress)
        if self.drop:
            vectors = vectors[:, : tail_drop(vectors.shape[1])]
        return self.compare(self.pixels(vectors), batch.images, progress) | {"bottleneck": own}


def model(variant: AdapterConfig) -> OneDPiece:
    """`tokens` tokens; `drop` = false for the ablated twin, which always sees all of them."""
    given = variant.config["model"]
    return OneDPiece(Shape(**given["shape"]), given["tokens"], VectorQuantizer(**given["quantizer"]), given["drop"])


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Raises MissingWeights where it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)), prefixes=True)
