"""textok: 1D tokens with the caption at both ends (Zha et al., TexTok, arXiv:2412.05796)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from tokbench.data.vocabulary import encode_captions
from tokbench.errors import AdapterError, DataError
from tokbench.nn.autoencoders import QueryAutoencoder
from tokbench.nn.quantizers.kl import KL
from tokbench.nn.text import RandomTextEncoder
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch, TrainingData
from tokbench.nn.vit import Shape
from tokbench.tokenizers.captioned import CaptionedTokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.tokens import Tokens
from tokbench.training.zoo import load_trained

WORD = 64
"""Number of values of a word's fixed random vector."""


class TexTok(QueryAutoencoder):
    """A 1D autoencoder whose encoder and decoder also process the words of the image's caption.

    Words have fixed random vectors, which a linear map per end brings to the width of the transformer. shuffled:
    whether training gives every image the caption of another image of the batch, the control.
    """

    def __init__(self, shape: Shape, count: int, bottleneck: KL, shuffled: bool, linear: bool) -> None:
        super().__init__(shape, count, bottleneck, linear=linear)
        self.shuffled = shuffled
        self.words = RandomTextEncoder(WORD)
        self.encoder_text, self.decoder_text = nn.Linear(WORD, shape.width), nn.Linear(WORD, shape.width)

    def prepare_data(
        self, data: TrainingData, device: str, mirrored: bool, progress: Callable[[int, int], None]
    ) -> TrainingData:
        if data.captions is None:
            raise DataError("training TexTok needs captions; use a dataset that has them, such as --data scenes-train")
        return data

    def latents(self, images: Tensor, captions: Tensor | None = None) -> Tensor:
        """Encode images (B, 3, H, W) and captions (B, L) to the inputs of the bottleneck, (B, count, 2 D)."""
        assert captions is not None, "the tokenizer and the training pass captions"
        encoded = self.encoder(images, self.encoder_text(self.words(captions)))
        return encoded if self.shortcut is None else encoded + self.shortcut.latents(images)

    def pixels(self, vectors: Tensor, seeds: Sequence[int] | None = None, captions: Tensor | None = None) -> Tensor:
        """Decode outputs of the bottleneck (B, count, D) and captions (B, L) to images (B, 3, H, W)."""
        assert captions is not None, "the tokenizer and the training pass captions"
        features = self.decoder(vectors, context=self.decoder_text(self.words(captions)))
        return self.head(features) + self.linear_pixels(vectors)

    def reconstruct(self, batch: TrainingBatch) -> Tensor:
        vectors = self.squeeze(self.latents(batch.images, batch.captions))[0]
        return self.pixels(vectors, captions=batch.captions)

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        captions = batch.captions
        if self.shuffled and captions is not None:
            captions = captions.roll(1, 0)
        vectors, own = self.squeeze(self.latents(batch.images, captions), progress)
        image = self.pixels(vectors, captions=captions)
        return self.compare(image, batch.images, progress) | {"bottleneck": own}


class TexTokTokenizer(LearnedTokenizer, CaptionedTokenizer):
    """The tokenizer of a trained TexTok: captions at both ends, whose bits are not counted."""

    model: TexTok

    def encode(self, images: Tensor, captions: Sequence[str] | None = None) -> Tokens:
        return self.tokens_of(self.model.latents(images, self._words(captions, images)))

    def decode(self, tokens: Tokens, seeds: Sequence[int], captions: Sequence[str] | None = None) -> Tensor:
        vectors = self.vectors(tokens)
        return self.model.pixels(vectors, seeds, self._words(captions, vectors))

    def _words(self, captions: Sequence[str] | None, like: Tensor) -> Tensor:
        return encode_captions(self.require_captions(captions, len(like))).to(like.device)


def model(variant: AdapterConfig) -> QueryAutoencoder:
    """Build the untrained model.

    `captions` is "own" for the paper's model, "shuffled" for the control that is trained with captions of other images,
    and "none" for the same transformers without text. Raises AdapterError for another value.
    """
    given = variant.config["model"]
    shape, count, bottleneck = Shape(**given["shape"]), given["tokens"], KL(given["channels"], given["weight"])
    if given["captions"] == "none":
        return QueryAutoencoder(shape, count, bottleneck, linear=given["linear"])
    if given["captions"] not in ("own", "shuffled"):
        raise AdapterError(f"{variant.name}: captions = {given['captions']!r}; give one of own, shuffled, none")
    return TexTok(shape, count, bottleneck, given["captions"] == "shuffled", given["linear"])


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    trained = load_trained(variant, model(variant))
    tokenizer = TexTokTokenizer if isinstance(trained, TexTok) else LearnedTokenizer
    return tokenizer(variant.name, trained)
