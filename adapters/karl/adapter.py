"""karl: as many tokens as an image needs, found in one pass (Duggal et al., KARL, arXiv:2507.07995)."""

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
from tokbench.nn.vit import MaskDecoder, Patches, QueryEncoder, Shape, initialise, learned
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.tokens import Tokens
from tokbench.training.zoo import base, load_trained

EDGES = torch.linspace(0.005, 0.38, 20)
"""Of the bins of the condition: the mean absolute error, of pixels in [0, 1], that a reconstruction may have."""
ASKED = 0.04
"""The first pass of a step is asked for an error between the least and this."""
HALTED = 0.75
"""A token with a higher chance of being superfluous is."""


class Both(nn.Module):
    """Patches of the image and the base's latents of them, embedded together (B, N, width)."""

    def __init__(self, shape: Shape, channels: int, around: ConvAutoencoder) -> None:
        super().__init__()
        self.patches, self.embed = Patches(shape), nn.Linear(channels, shape.width)
        self._around = [around]  # in a list: it belongs to the whole

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            latents = self._around[0].latents(images).flatten(1, 2)
        return self.patches(images) + self.embed(latents)


class KARL(BottleneckAutoencoder):
    """A frozen VQ autoencoder below; a row of tokens above, from which its codes are predicted.

    Two passes a step. In the first some number T of tokens reconstruct, and the error that they reach is measured. In
    the second all tokens are asked for just that error: those after the T-th should say that they are superfluous, and
    are hidden. So the network learns how many tokens an error takes.
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
        self.encoder = QueryEncoder(shape, count, quantizer.dim, patches=Both(shape, channels, around))
        self.asked = learned(len(EDGES) + 1, shape.width)
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

    def seen(self, images: Tensor, error: Tensor, count: int | None = None) -> tuple[Tensor, Tensor]:
        """With `error` (B,) asked for: latents of the first `count` tokens (B, count, D), how superfluous they are."""
        context = self.asked[torch.bucketize(error, EDGES.to(error.device))][:, None]
        features = self.encoder.features(images, context, count)
        return self.encoder.head(features), self.halting(features)[..., 0]

    def latents(self, images: Tensor) -> Tensor:
        return self.seen(images, torch.full((len(images),), self.error, device=images.device))[0]

    def codes(self, vectors: Tensor, keep: Tensor | None = None) -> Tensor:
        """Logits of the base's codes (B, N, K)."""
        return self.head(self.decoder(vectors, keep))

    def painted(self, logits: Tensor) -> Tensor:
        """Images from codes in the proportion of their chances, as the authors decode."""
        around, quantizer = self._around()
        vectors = logits.float().softmax(-1) @ quantizer.table()[0]
        side = round(vectors.shape[1] ** 0.5)
        return around.pixels(vectors.unflatten(1, (side, side)))

    def pixels(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """The first of the row's vectors (B, k, D)."""
        return self.painted(self.codes(vectors))

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        images, device = batch.images, batch.images.device
        around, quantizer = self._around()
        assert self.tokens is not None
        with torch.no_grad():
            target = quantizer(around.latents(images).flatten(1, 2))
            wanted = target.indices[..., 0]
        count = 4 * int(torch.randint(1, self.tokens // 4 + 1, ()))
        low = torch.empty(len(images)).uniform_(float(EDGES[0]), ASKED).to(device)
        latents, halting = self.seen(images, low, count)
        vectors, own = self.squeeze(latents, progress)
        logits = self.codes(vectors)
        terms = {"codes": self._codes(logits, wanted, target.vectors), "bottleneck": own, "halting": _halts(halting, 0)}
        with torch.no_grad():
            reached = (self.painted(logits) - images).abs().mean((1, 2, 3)) / 2
        latents, halting = self.seen(images, reached)
        vectors, own = self.squeeze(latents, progress)
        keep = prefix(torch.full((len(images),), count, device=device), self.tokens)
        logits = self.codes(vectors, keep)
        terms["codes"] = terms["codes"] + self._codes(logits, wanted, target.vectors)
        terms["bottleneck"] = terms["bottleneck"] + own
        terms["halting"] = terms["halting"] + _halts(halting[:, :count], 0)
        if count < self.tokens:
            terms["halting"] = terms["halting"] + _halts(halting[:, count:], 1)
        return terms

    def _codes(self, logits: Tensor, wanted: Tensor, vectors: Tensor) -> Tensor:
        table = self._around()[1].table()[0]
        soft = logits.float().softmax(-1) @ table
        return F.cross_entropy(logits.float().flatten(0, 1), wanted.flatten()) + (soft - vectors).square().mean()


def _halts(logits: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits.float(), target))


class KARLTokenizer(LearnedTokenizer):
    """Asked for `error`, an image gets as many tokens as are not superfluous: the first ones of the row."""

    model: KARL

    def encode(self, images: Tensor) -> Tokens:
        """(B, 3, H, W) in [-1, 1] to indices (B, N, 1): each image's first `length` count, the others are 0."""
        model, bottleneck = self.model, self.model.bottleneck
        assert isinstance(bottleneck, VectorQuantizer)
        latents, halting = model.seen(images, torch.full((len(images),), model.error, device=images.device))
        length = (halting.sigmoid() <= HALTED).sum(1).clamp(min=1)
        indices = bottleneck(latents).indices * prefix(length, latents.shape[1])[..., None]
        return Tokens.from_indices(indices, bottleneck.codebook_size, length=length)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        vectors = self.vectors(tokens)
        keep = prefix(tokens.length.to(vectors.device), vectors.shape[1])
        return self.model.painted(self.model.codes(vectors, keep))


def model(variant: AdapterConfig) -> KARL:
    """Raises MissingWeights where the autoencoder below is not trained."""
    given = variant.config["model"]
    quantizer = VectorQuantizer(**given["quantizer"])
    return KARL(base(variant, ConvAutoencoder), Shape(**given["shape"]), given["tokens"], quantizer, given["error"])


def load(variant: AdapterConfig, device: str) -> KARLTokenizer:
    """Raises MissingWeights where it, or the autoencoder below, is not trained."""
    return KARLTokenizer(variant.name, load_trained(variant, model(variant)), prefixes=True, variable=True)
