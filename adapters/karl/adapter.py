"""karl: a 1D tokenizer with an adaptive number of tokens, found in one pass (Duggal et al., KARL, arXiv:2507.07995)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.autoencoders import ConvAutoencoder
from tokbench.nn.nested_dropout import prefix
from tokbench.nn.quantizers.quantizer import Quantizer
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.tokenizer import BottleneckAutoencoder, LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import MaskDecoder, Patches, QueryEncoder, Shape, initialise, random_parameter
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.tokens import Tokens
from tokbench.training.zoo import base, load_trained

EDGES = torch.linspace(0.005, 0.38, 20)
"""Bin edges of the condition, the target reconstruction error: mean absolute error of pixels in [0, 1]."""
MAX_TARGET = 0.04
"""Largest target error of the first training pass; the smallest is the first bin edge."""
HALTED = 0.75
"""Halting probability above which a token is discarded."""


class ImageAndLatents(nn.Module):
    """Embeds an image (B, 3, H, W) as (B, N, width), the sum of patch embedding and embedded latents of the base."""

    def __init__(self, shape: Shape, channels: int, around: ConvAutoencoder) -> None:
        super().__init__()
        self.patches, self.embed = Patches(shape), nn.Linear(channels, shape.width)
        self._around = [around]  # in a list, so that it is not registered as a submodule

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            latents = self._around[0].latents(images).flatten(1, 2)
        return self.patches(images) + self.embed(latents)


class KARL(BottleneckAutoencoder):
    """1D tokens from which the codes of a frozen VQ autoencoder are predicted, with a halting probability per token.

    A training step has two passes. In the first a random number T of tokens reconstructs the image, and the error is
    measured. In the second this error is the target error for all tokens: tokens after the T-th are trained to halt and
    are masked. So the network learns how many tokens an error requires.

    around: the frozen autoencoder. count: largest number of tokens. error: target error in evaluation, the mean
    absolute error of pixels in [0, 1].
    """

    perceptual = 0.0

    def __init__(
        self, around: ConvAutoencoder, shape: Shape, count: int, quantizer: VectorQuantizer, error: float
    ) -> None:
        super().__init__()
        self.size, self.step, self.tokens, self.error = shape.size, shape.patch, count, error
        assert isinstance(around.bottleneck, Quantizer)
        self.bases = {"autoencoder": around}
        channels, codes = around.bottleneck.dim, around.bottleneck.codebook_size
        self.encoder = QueryEncoder(shape, count, quantizer.dim, patches=ImageAndLatents(shape, channels, around))
        self.asked = random_parameter(len(EDGES) + 1, shape.width)
        self.halting = nn.Sequential(nn.Linear(shape.width, 64), nn.Tanh(), nn.Linear(64, 1))
        self.halting.apply(initialise)
        self.bottleneck = quantizer
        self.decoder = MaskDecoder(shape, count, quantizer.dim)
        self.head = nn.Linear(shape.width, codes)
        initialise(self.head)

    def _around(self) -> tuple[ConvAutoencoder, Quantizer]:
        around = self.bases["autoencoder"]
        assert isinstance(around, ConvAutoencoder)
        assert isinstance(around.bottleneck, Quantizer)
        return around, around.bottleneck

    def encode(self, images: Tensor, error: Tensor, count: int | None = None) -> tuple[Tensor, Tensor]:
        """Return latents (B, count, D) and halting logits (B, count) of the first tokens for a target `error` (B,)."""
        context = self.asked[torch.bucketize(error, EDGES.to(error.device))][:, None]
        features = self.encoder.features(images, context, count)
        return self.encoder.head(features), self.halting(features)[..., 0]

    def encoded(self, images: Tensor) -> Tensor:
        return self.encode(images, torch.full((len(images),), self.error, device=images.device))[0]

    def codes(self, vectors: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return logits (B, N, K) of the base's codes, given vectors (B, k, D) and an optional mask `keep` (B, k)."""
        return self.head(self.decoder(vectors, keep))

    def decode_codes(self, logits: Tensor) -> Tensor:
        """Decode images from the expected codebook vectors under the logits (B, N, K), as the authors do."""
        around, quantizer = self._around()
        vectors = logits.float().softmax(-1) @ quantizer.table()[0]
        side = round(vectors.shape[1] ** 0.5)
        return around.pixels(vectors.unflatten(1, (side, side)))

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Decode the first k vectors (B, k, D) to images (B, 3, H, W)."""
        return self.decode_codes(self.codes(vectors))

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        images, device = batch.images, batch.images.device
        around, quantizer = self._around()
        assert self.tokens is not None
        with torch.no_grad():
            target = quantizer(around.latents(images).flatten(1, 2))
            targets = target.indices[..., 0]
        count = 4 * int(torch.randint(1, self.tokens // 4 + 1, ()))
        target_error = torch.empty(len(images)).uniform_(float(EDGES[0]), MAX_TARGET).to(device)
        latents, halting = self.encode(images, target_error, count)
        vectors, own = self.squeeze(latents, progress)
        logits = self.codes(vectors)
        terms = {
            "codes": self._code_loss(logits, targets, target.vectors),
            "bottleneck": own,
            "halting": _halting_loss(halting, 0),
        }
        with torch.no_grad():
            error = (self.decode_codes(logits) - images).abs().mean((1, 2, 3)) / 2
        latents, halting = self.encode(images, error)
        vectors, own = self.squeeze(latents, progress)
        keep = prefix(torch.full((len(images),), count, device=device), self.tokens)
        logits = self.codes(vectors, keep)
        terms["codes"] = terms["codes"] + self._code_loss(logits, targets, target.vectors)
        terms["bottleneck"] = terms["bottleneck"] + own
        terms["halting"] = terms["halting"] + _halting_loss(halting[:, :count], 0)
        if count < self.tokens:
            terms["halting"] = terms["halting"] + _halting_loss(halting[:, count:], 1)
        return terms

    def _code_loss(self, logits: Tensor, targets: Tensor, vectors: Tensor) -> Tensor:
        table = self._around()[1].table()[0]
        expected = logits.float().softmax(-1) @ table
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten()) + (expected - vectors).square().mean()


def _halting_loss(logits: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits.float(), target))


class KARLTokenizer(LearnedTokenizer):
    """The trained tokenizer; an image gets the first tokens, as many as do not halt at the target error."""

    model: KARL

    def encode(self, images: Tensor) -> Tokens:
        """Encode (B, 3, H, W) in [-1, 1] to indices (B, N, 1); those after the first `length` of an image are 0."""
        model, bottleneck = self.model, self.model.bottleneck
        assert isinstance(bottleneck, VectorQuantizer)
        latents, halting = model.encode(images, torch.full((len(images),), model.error, device=images.device))
        length = (halting.sigmoid() <= HALTED).sum(1).clamp(min=1)
        indices = bottleneck(latents).indices * prefix(length, latents.shape[1])[..., None]
        return Tokens.from_indices(indices, bottleneck.codebook_size, length=length)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        vectors = self.vectors(tokens)
        keep = prefix(tokens.length.to(vectors.device), vectors.shape[1])
        return self.model.decode_codes(self.model.codes(vectors, keep))


def model(variant: AdapterConfig) -> KARL:
    """Build the untrained model. Raises MissingWeights if the underlying autoencoder is not trained."""
    given = variant.config["model"]
    quantizer = VectorQuantizer(**given["quantizer"])
    return KARL(base(variant, ConvAutoencoder), Shape(**given["shape"]), given["tokens"], quantizer, given["error"])


def load(variant: AdapterConfig, device: str) -> KARLTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it or its autoencoder is not trained."""
    return KARLTokenizer(variant.name, load_trained(variant, model(variant)), prefixes=True, variable=True)
