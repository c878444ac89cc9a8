"""one_d_piece: a 1D tokenizer whose first k tokens decode for any k (Miwa et al., One-D-Piece, arXiv:2501.10064)."""

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
    """TiTok with tail token drop: in training the decoder gets the first k quantized tokens, with k random per batch.

    drop: whether tokens are dropped; False is the ablation.
    """

    def __init__(self, shape: Shape, count: int, quantizer: VectorQuantizer, drop: bool, linear: bool) -> None:
        super().__init__(shape, count, quantizer, linear=linear)
        self.drop = drop

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        vectors, own = self.squeeze(self.latents(batch.images), progress)
        if self.drop:
            vectors = vectors[:, : tail_drop(vectors.shape[1])]
        return self.compare(self.pixels(vectors), batch.images, progress) | {"bottleneck": own}


def model(variant: AdapterConfig) -> OneDPiece:
    """Build the untrained model that a TOML file describes."""
    given = variant.config["model"]
    quantizer, linear = VectorQuantizer(**given["quantizer"]), given.get("linear", False)
    return OneDPiece(Shape(**given["shape"]), given["tokens"], quantizer, given["drop"], linear)


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)), prefixes=True)
