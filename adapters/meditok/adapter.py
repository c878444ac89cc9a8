"""meditok: several codes per position, aligned with images and then with captions (Ma et al., arXiv:2505.19225)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.data.vocabulary import encode_captions
from tokbench.errors import DataError
from tokbench.nn.conv import ConvDecoder, ConvEncoder
from tokbench.nn.losses import contrast
from tokbench.nn.quantizers.product import ProductVQ
from tokbench.nn.shortcut import PatchShortcut
from tokbench.nn.teacher import DIM, SemanticTeacher
from tokbench.nn.text import RandomTextEncoder, pool_words
from tokbench.nn.tokenizer import BottleneckAutoencoder, LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch, TrainingData
from tokbench.nn.vit import Transformer, sincos_positions
from tokbench.tokenizers.captioned import TextAligned
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.tokens import Tokens
from tokbench.training.zoo import load_trained

SIDE, WORD = 8, 64
"""Side of the grid of tokens, and number of values of a word's fixed random vector."""


class MedITok(BottleneckAutoencoder):
    """An autoencoder with attention on both sides of a product quantizer, whose pooled tokens are aligned.

    visual: weight of the contrastive loss between the pooled tokens and a teacher's pooled features of the image.
    text: weight of the one between the pooled tokens and fixed random vectors of the caption's words. text_from: the
    share of the training after which the second one is used: between 0 and 1 for two stages, 0 for joint training, 1
    for the first stage alone. widths, stem: see `ConvAutoencoder`.
    """

    kept_out = ("image_head.",)

    def __init__(
        self,
        quantizer: ProductVQ,
        visual: float,
        text: float,
        text_from: float,
        widths: Sequence[int],
        stem: int,
    ) -> None:
        super().__init__()
        self.size, self.tokens = SIDE * self.step, SIDE**2
        self.visual, self.text, self.text_from = visual, text, text_from
        width = widths[-1]
        self.encoder, self.bottleneck, self.decoder = (
            ConvEncoder(width, widths, stem), quantizer, ConvDecoder(width, widths, stem)
        )  # fmt: skip
        self.positions = sincos_positions(SIDE, width)
        self.before, self.down = Transformer(width, 1, 4), nn.Linear(width, quantizer.dim)
        self.up, self.after = nn.Linear(quantizer.dim, width), Transformer(width, 1, 4)
        self.words, self.text_head = RandomTextEncoder(WORD), nn.Linear(width, WORD)
        self.add_shortcut(PatchShortcut(quantizer, self.step, grid=False), self.down, self.decoder.head[-1])

    def ready(self, device: str) -> None:
        super().ready(device)
        self.image_head = nn.Linear(self.text_head.in_features, DIM).to(device)

    def prepare_data(
        self, data: TrainingData, device: str, mirrored: bool, progress: Callable[[int, int], None]
    ) -> TrainingData:
        if data.captions is None:
            raise DataError("training MedITok needs captions; use a dataset that has them: --data phantoms-train")
        return SemanticTeacher(SIDE).features_of(data, device, progress)

    def encoded(self, images: Tensor) -> Tensor:
        grid = self.encoder(images).flatten(2).transpose(1, 2)
        return self.down(self.before(grid + self.positions))

    def features(self, vectors: Tensor) -> Tensor:
        """Map outputs of the bottleneck (B, N, D) to features (B, N, width), which are decoded and aligned."""
        return self.after(self.up(vectors) + self.positions)

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        return self._image(self.features(vectors))

    def _image(self, features: Tensor) -> Tensor:
        return self.decoder(features.transpose(1, 2).unflatten(2, (SIDE, SIDE)))

    def embed_captions(self, captions: Tensor) -> Tensor:
        """Map captions (B, L) to the fixed vectors (B, WORD) that pooled tokens are aligned with."""
        return F.normalize(pool_words(self.words(captions)), dim=1)

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        assert batch.features is not None and batch.captions is not None, "prepare_data adds or requires them"
        vectors, own = self.squeeze(self.latents(batch.images), progress)
        features = self.features(vectors)
        image = self._image(features) + self.linear_pixels(vectors)
        terms = self.compare(image, batch.images, progress) | {"bottleneck": own}
        pooled, teacher = features.mean(1), batch.features.mean(1)
        terms["visual"] = self.visual * contrast(self.image_head(pooled), teacher)
        if progress >= self.text_from < 1:
            same = (batch.captions[:, None] == batch.captions).all(2)
            terms["text"] = self.text * contrast(self.text_head(pooled), self.embed_captions(batch.captions), same)
        return terms


class AlignedTokenizer(TextAligned, LearnedTokenizer):
    """The tokenizer of a trained MedITok, which embeds tokens and captions in one space."""

    model: MedITok

    def token_embeddings(self, tokens: Tokens) -> Tensor:
        device = self.model.positions.device
        return self.model.text_head(self.model.features(self.vectors(tokens).to(device)).mean(1)).float()

    def caption_embeddings(self, captions: Sequence[str]) -> Tensor:
        return self.model.embed_captions(encode_captions(captions).to(self.model.positions.device)).float()


def model(variant: AdapterConfig) -> MedITok:
    """Build the untrained model that a TOML file describes."""
    given = dict(variant.config["model"])
    return MedITok(ProductVQ(**given.pop("quantizer")), **given)


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained.

    It embeds captions only if text was aligned in the training.
    """
    trained = load_trained(variant, model(variant))
    kind = AlignedTokenizer if trained.text and trained.text_from < 1 else LearnedTokenizer
    return kind(variant.name, trained)
