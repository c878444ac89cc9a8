"""seed: causal semantic codes with a generative detokenizer (Ge et al., SEED, arXiv:2307.08041)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.data.vocabulary import encode_captions
from tokbench.errors import AdapterError
from tokbench.nn.autoencoders import ConvAutoencoder
from tokbench.nn.base_latents import with_base_latents
from tokbench.nn.flow import FlowDecoder, add_noise, logit_normal
from tokbench.nn.losses import contrast, cosine
from tokbench.nn.masks import causal, causal_queries, patches_then_queries
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.teacher import DIM
from tokbench.nn.teacher_autoencoder import TeacherAutoencoder
from tokbench.nn.text import TextEncoder, pool_words
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch, TrainingData
from tokbench.nn.vit import Places, QueryEncoder, Shape, Transformer, random_parameter
from tokbench.tokenizers.captioned import TextAligned
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.tokens import Tokens
from tokbench.training.zoo import base, load_trained

QUANTIZED_FROM = 0.4
"""Share of the training after which the queries are frozen and the codes are trained (the paper's second stage)."""
WEIGHTS = {"bottleneck": 5.0, "embedding": 2.0, "image": 0.5}
"""Weights of the paper's second stage: quantization, reconstructed embeddings, and predicted image embedding."""
SMOOTHING = 0.1
"""Label smoothing of the contrastive loss, as in the paper's code."""
UNGUIDED = 0.1
"""Share of the images whose condition is dropped in training, for classifier-free guidance."""


def two_layers(before: int, inner: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(before, inner), nn.Tanh(), nn.Linear(inner, after))


class Reader(nn.Module):
    """A causal transformer over the vectors of the first k codes, (B, k, width) to the same."""

    mask: Tensor

    def __init__(self, count: int, shape: Shape) -> None:
        super().__init__()
        self.positions, self.body = random_parameter(count, shape.width), Transformer(shape.width, 2, shape.heads)
        self.register_buffer("mask", causal(count), persistent=False)

    def forward(self, vectors: Tensor) -> Tensor:
        count = vectors.shape[1]
        return self.body(vectors + self.positions[:count], self.mask[:count, :count])


class SEED(TeacherAutoencoder):
    """Queries read a frozen teacher's features; codes of them predict an image embedding, from which a rectified flow
    draws the latents of a frozen autoencoder.

    First the queries are trained by contrast with captions, then they are frozen, and the codes learn to reconstruct
    them. The image embedding is the mean of the teacher's features. For each k, the mean of the first k queries is
    contrasted, so that a query adds to the earlier ones instead of repeating them, and the embeddings are predicted
    from the first k codes, so that first codes can be decoded and compared with captions, too.

    around: the frozen autoencoder. count: number of codes. ordered: whether a query attends to earlier queries only;
    otherwise to all (the ablation). steps, guidance: number of Euler steps and guidance scale of decoding.
    """

    perceptual = 0.0
    kept_out = ("temperature",)
    loss_checked_at = (0.0, 1.0)
    mean: Tensor
    deviation: Tensor

    def __init__(
        self, around: ConvAutoencoder, shape: Shape, count: int, quantizer: VectorQuantizer, ordered: bool, steps: int,
        guidance: float,
    ) -> None:  # fmt: skip
        super().__init__(shape.side)
        self.size, self.step, self.tokens = shape.size, shape.patch, count
        self.bases["autoencoder"] = around
        self.steps, self.guidance, self.bottleneck = steps, guidance, quantizer
        width, channels = shape.width, around.bottleneck.dim
        mask = (causal_queries if ordered else patches_then_queries)(shape.patches, count)
        self.queries = QueryEncoder(shape, count, width, mask, Places(DIM, shape))
        self.down, self.up = two_layers(width, width, quantizer.dim), two_layers(quantizer.dim, width, width)
        self.read_embeddings, self.read_image = Reader(count, shape), Reader(count, shape)
        self.image, self.text = nn.Linear(width, DIM), TextEncoder(width, depth=1)
        self.decoder = FlowDecoder(shape.patches, channels, 1, DIM, width, shape.depth, shape.heads)
        self.register_buffer("scale", torch.ones(DIM))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))
        self.scale: Tensor

    def ready(self, device: str) -> None:
        super().ready(device)
        self.temperature = nn.Parameter(torch.tensor(2.0, device=device))

    @property
    def around(self) -> ConvAutoencoder:
        around = self.bases["autoencoder"]
        assert isinstance(around, ConvAutoencoder)
        return around

    def prepare_data(
        self, data: TrainingData, device: str, mirrored: bool, progress: Callable[[int, int], None]
    ) -> TrainingData:
        """Add the teacher's features and the autoencoder's latents.

        Raises AdapterError if the images have no captions.
        """
        if data.captions is None:
            raise AdapterError("it is trained with captions; use a dataset with captions, such as tiny-imagenet-train")
        featured = super().prepare_data(data, device, mirrored, progress)
        return with_base_latents("seed", self.around, featured, device, mirrored, progress)

    def start(self, batch: TrainingBatch) -> None:
        assert batch.tokens is not None
        latents = self._means(batch.tokens)
        self.mean.copy_(latents.mean((0, 1)))
        self.deviation.copy_(latents.std((0, 1)))
        self.scale.copy_(self.given(batch).mean(1).std(0, correction=0).clamp_min(1e-3))

    def _means(self, latents: Tensor) -> Tensor:
        """Return the outputs of the autoencoder's bottleneck for its latents (B, N, C)."""
        with torch.no_grad():
            return self.around.squeeze(latents.float())[0]

    def embeddings(self, features: Tensor) -> Tensor:
        """Return the queries' embeddings (B, count, width) of teacher features (B, N, DIM)."""
        return self.queries(F.layer_norm(features, (DIM,)))

    def latents_of(self, images: Tensor, features: Tensor) -> Tensor:
        return self.down(self.embeddings(features))

    def contrast(self, embeddings: Tensor, captions: Tensor) -> Tensor:
        """Return the contrastive loss between the mean of the first k queries' embeddings, for each k, and the captions
        of the batch, both ways.

        embeddings: (B, count, width). captions: int64 (B, L). Equal captions count as matches of each other's images.
        """
        same = (captions[:, None] == captions[None]).all(2)
        found = self.caption_embedding(captions)
        sums = embeddings.float().cumsum(1)  # their direction is that of the means
        return contrast(sums.transpose(0, 1), found, same, self.temperature.exp(), SMOOTHING)

    def caption_embedding(self, captions: Tensor) -> Tensor:
        """Return the embeddings (B, width) of captions, the numbers of their words (B, L)."""
        return pool_words(self.text(captions)).float()

    def code_embedding(self, vectors: Tensor) -> Tensor:
        """Return the mean embedding (B, width) of the first k codes' queries, from their vectors (B, k, dim)."""
        return self.read_embeddings(self.up(vectors)).mean(1)

    def image_embedding(self, vectors: Tensor) -> Tensor:
        """Predict the image embedding, scaled, from the first 1 to k codes (B, k, DIM); vectors are (B, k, dim)."""
        return self.image(self.read_image(self.up(vectors)))

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        assert batch.tokens is not None and batch.captions is not None, "prepare_data adds latents, checks captions"
        features = self.given(batch)
        target = features.mean(1) / self.scale
        terms = {"flow": self.flow(batch.tokens, target)}
        if progress < QUANTIZED_FROM:
            return terms | {"contrast": self.contrast(self.embeddings(features), batch.captions)}
        with torch.no_grad():
            embeddings = self.embeddings(features)
        vectors, own = self.squeeze(self.down(embeddings), progress)
        found = {
            "bottleneck": own,
            "embedding": cosine(self.read_embeddings(self.up(vectors)), embeddings),
            "image": (self.image_embedding(vectors).float() - target[:, None]).square().mean(),
        }
        return terms | {name: WEIGHTS[name] * value for name, value in found.items()}

    def flow(self, latents: Tensor, condition: Tensor) -> Tensor:
        """Return the flow loss of the autoencoder's latents (B, N, C), conditioned on image embeddings (B, DIM)."""
        target = (self._means(latents) - self.mean) / self.deviation
        keep = (torch.rand(len(target), 1) >= UNGUIDED).to(target.device)
        x, velocity = add_noise(target, time := logit_normal(len(target), target.device))
        predicted = self.decoder(x, time, condition[:, None], keep)
        return (predicted.float() - velocity).square().mean()

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Decode the vectors of the first k codes (B, k, dim) to images (B, 3, H, W)."""
        assert seeds is not None, "a flow decoder needs seeds"
        latents = self.decoder.sample(self.image_embedding(vectors)[:, -1:], seeds, self.steps, self.guidance)
        side = round(latents.shape[1] ** 0.5)
        return self.around.pixels((latents * self.deviation + self.mean).unflatten(1, (side, side)))


def model(variant: AdapterConfig) -> SEED:
    """Build the untrained model. Raises MissingWeights if the underlying autoencoder is not trained."""
    given = dict(variant.config["model"])
    around, shape = base(variant, ConvAutoencoder), Shape(**given.pop("shape"))
    quantizer = VectorQuantizer(**given.pop("quantizer"))
    return SEED(around, shape, given.pop("count"), quantizer, given.pop("causal"), **given)


class SEEDTokenizer(LearnedTokenizer, TextAligned):
    """The tokenizer of a trained model, whose codes can be compared with captions."""

    model: SEED

    def token_embeddings(self, tokens: Tokens) -> Tensor:
        return self.model.code_embedding(self.vectors(tokens))

    def caption_embeddings(self, captions: Sequence[str]) -> Tensor:
        return self.model.caption_embedding(encode_captions(captions).to(self.model.mean.device))


def load(variant: AdapterConfig, device: str) -> SEEDTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it or its autoencoder is not trained."""
    return SEEDTokenizer(variant.name, load_trained(variant, model(variant)), prefixes=True)
