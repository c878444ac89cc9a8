"""illume_plus: semantic and pixel codes in separate branches, DualViTok (Huang et al., ILLUME+, arXiv:2504.01934)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.errors import AdapterError
from tokbench.nn.conv import WIDTHS, ConvDecoder, ConvEncoder
from tokbench.nn.losses import cosine
from tokbench.nn.quantizers.quantizer import Quantizer
from tokbench.nn.quantizers.segments import Segmented
from tokbench.nn.quantizers.simvq import SimVQ
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.semantic import FeatureTransformer
from tokbench.nn.shortcut import PatchShortcut
from tokbench.nn.teacher import DIM
from tokbench.nn.teacher_autoencoder import TeacherAutoencoder
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained

SIDE, STEP, DEPTH = 8, 8, 2
"""Side of the teacher's grid and of the pixel codes' grid, px per position, and depth of the semantic transformers."""


def resized(vectors: Tensor, side: int, mode: str) -> Tensor:
    """Resize a grid of vectors (B, n * n, D) to (B, side * side, D) by the interpolation `mode` of torch."""
    own = math.isqrt(vectors.shape[1])
    if own == side:
        return vectors
    grid = vectors.float().transpose(1, 2).unflatten(2, (own, own))
    return F.interpolate(grid, (side, side), mode=mode).flatten(2).transpose(1, 2)


class DualViTok(TeacherAutoencoder):
    """Semantic codes of a frozen teacher's features, pixel codes of the image, and one decoder that reads both.

    Tokens are the semantic codes, row by row, and then the pixel codes. Missing last tokens count as zero vectors.

    make: builds the quantizer of one branch. semantic: side of the grid of semantic codes; None for none. pixel:
    whether there are pixel codes. drop: probability with which a random share of an image's pixel codes is replaced in
    training by those of another image. linear: whether the pixel branch starts from PCA. widths, stem: see
    `ConvAutoencoder`.
    """

    kept_out = ("predictor.",)

    def __init__(
        self,
        make: type[SimVQ | VectorQuantizer],
        quantizer: dict[str, int],
        semantic: int | None,
        pixel: bool,
        drop: float,
        widths: Sequence[int] = WIDTHS,
        stem: int = 2,
        linear: bool = False,
    ) -> None:
        super().__init__(SIDE)
        counts = ([semantic**2] if semantic else []) + [SIDE**2] * pixel
        self.bottleneck: Segmented = Segmented(counts, [make(**quantizer) for _ in counts])
        self.size, self.step, self.tokens = STEP * SIDE, STEP, sum(counts)
        self.semantic, self.pixel, self.drop = semantic, pixel, drop
        dim = self.bottleneck.dim
        if semantic:
            self.reader = FeatureTransformer(DIM, semantic, DEPTH, dim)
            self.register_buffer("scale", torch.zeros(dim))
            nn.init.zeros_(self.reader.head.weight)
            nn.init.zeros_(self.reader.head.bias)
        if pixel:
            self.encoder = ConvEncoder(dim, widths, stem)
        self.decoder = ConvDecoder(dim * len(counts), widths, stem)
        if linear and pixel:
            shortcut = PatchShortcut(self.bottleneck.parts[-1], STEP, grid=False)
            self.add_shortcut(shortcut, self.encoder.head[-1], self.decoder.head[-1])

    def ready(self, device: str) -> None:
        super().ready(device)
        if self.semantic:
            self.predictor = FeatureTransformer(self.bottleneck.dim, self.semantic, DEPTH).to(device)

    def start(self, batch: TrainingBatch) -> None:
        if self.shortcut is not None:
            self.shortcut.fit(batch.images, self.bottleneck.parts[-1])
        if self.semantic:
            features = resized(self.given(batch), self.semantic, "area")[..., : self.bottleneck.dim]
            total = features.flatten(0, 1).var(0).sum().clamp_min(1e-8)
            self.scale.copy_(total.rsqrt().expand_as(self.scale))
            self.bottleneck.parts[0].start((features * self.scale).flatten(0, 1))

    def latents_of(self, images: Tensor, features: Tensor) -> Tensor:
        """Encode images and their features to the latents of all codes (B, tokens, dim), semantic ones first.

        The semantic transformer is added to the features' first principal components.
        """
        found = []
        if self.semantic:
            own = resized(features, self.semantic, "area")
            found.append(self.reader(F.layer_norm(own, (DIM,))) + own[..., : self.bottleneck.dim] * self.scale)
        if self.pixel:
            latents = self.encoder(images).flatten(2).transpose(1, 2)
            found.append(latents if self.shortcut is None else latents + self.shortcut.latents(images))
        return torch.cat(found, 1)

    def split(self, vectors: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Split the vectors (B, tokens, dim) into those of the semantic and of the pixel codes."""
        count = self.semantic**2 if self.semantic else 0
        return vectors[:, :count] if self.semantic else None, vectors[:, count:] if self.pixel else None

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        features = self.given(batch)
        vectors, own = self.squeeze(self.latents_of(batch.images, features), progress)
        semantic, pixel = self.split(vectors)
        terms = {"bottleneck": own}
        if semantic is not None and self.semantic:
            target = resized(features, self.semantic, "area")
            terms["semantic"] = cosine(self.predictor(semantic), target)
            if pixel is not None and self.drop:
                share = torch.where(torch.rand(len(pixel), 1) < self.drop, torch.rand(len(pixel), 1), 0.0)
                replaced = (torch.rand(pixel.shape[:2]) < share).to(pixel.device)
                vectors = torch.cat([semantic, torch.where(replaced[..., None], pixel.detach().roll(1, 0), pixel)], 1)
        return self.compare(self.pixels(vectors), batch.images, progress) | terms

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        semantic, pixel = self.split(vectors)
        parts = [] if semantic is None else [resized(semantic, SIDE, "bicubic")]
        parts += [] if pixel is None else [pixel]
        return self.decoder(torch.cat(parts, 2).transpose(1, 2).unflatten(2, (SIDE, SIDE)))

    def linear_pixels(self, vectors: Tensor) -> Tensor | float:
        pixel = self.split(vectors)[1]
        return 0.0 if self.shortcut is None or pixel is None else self.shortcut.pixels(pixel)

    def pixels(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Decode the vectors (B, k, dim) of the first k tokens to images (B, 3, 64, 64)."""
        assert self.tokens is not None
        return super().pixels(F.pad(vectors, (0, 0, 0, self.tokens - vectors.shape[1])), seeds)


def model(variant: AdapterConfig) -> DualViTok:
    """Build the untrained model that a TOML file describes. Raises AdapterError for an unknown kind of quantizer."""
    given = dict(variant.config["model"])
    quantizer = dict(given.pop("quantizer"))
    kinds: dict[str, type[Quantizer]] = {"simvq": SimVQ, "vq": VectorQuantizer}
    kind = quantizer.pop("kind")
    if kind not in kinds:
        raise AdapterError(f"{variant.name}: its quantizer's kind is {kind!r}; give one of {', '.join(kinds)}")
    semantic = given.pop("semantic") or None  # TOML has no None; 0 is no semantic branch
    return DualViTok(kinds[kind], quantizer, semantic, **given)


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)), prefixes=True)
