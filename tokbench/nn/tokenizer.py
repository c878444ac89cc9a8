"""Tokenizers of models that tokbench trains: an encoder, a bottleneck and a decoder."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from tokbench.metric_names import Anchor, Modality
from tokbench.nn.perturb import BitPerturber, CodePerturber
from tokbench.nn.quantizers.bits import BernoulliBits
from tokbench.nn.quantizers.bottleneck import Bottleneck
from tokbench.nn.quantizers.fsq import FSQ
from tokbench.nn.quantizers.lfq import LFQ
from tokbench.nn.quantizers.quantizer import Quantizer
from tokbench.nn.shortcut import Shortcut
from tokbench.nn.trainable import Autoencoder, TrainingBatch
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.perturb import Perturber
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens


class BottleneckAutoencoder(Autoencoder):
    """An autoencoder with a `bottleneck`; its loss is the reconstruction loss plus that of the bottleneck.

    size: the only supported image side in px; None if every multiple of `step` is supported. tokens: the number of
    tokens per image; None if there is one for each `step` x `step` px. shortcut: linear maps that are added to both
    networks; they are fitted before the training, so that the networks start from PCA. modalities, causal, temporal,
    first_frame: as in `TokenizerSpec`. For items of other shapes than images, `images` and `pixels` below are these
    items, and `step` counts samples along every axis after the channels.
    """

    bottleneck: Bottleneck
    size: int | None = None
    tokens: int | None = None
    step: int = 8
    modalities: tuple[Modality, ...] = ("image",)
    causal: bool | None = None
    temporal: int = 1
    first_frame: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.shortcut: Shortcut | None = None

    @abstractmethod
    def encoded(self, images: Tensor) -> Tensor:
        """Return the encoder network's part of `latents`, of the same shape."""

    @abstractmethod
    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Return the decoder network's part of `pixels`, of the same shape."""

    def latents(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) in [-1, 1] to the inputs of the bottleneck, (B, *position, D)."""
        encoded = self.encoded(images)
        return encoded if self.shortcut is None else encoded + self.shortcut.latents(images)

    def pixels(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Decode outputs of the bottleneck (B, *position, D) to images (B, 3, H, W), about [-1, 1].

        seeds: one per image, for decoders that sample; None in training.
        """
        return self.decoded(vectors, seeds) + self.linear_pixels(vectors)

    def linear_pixels(self, vectors: Tensor) -> Tensor | float:
        """Return the linear maps' part of `pixels`, 0 if there are none."""
        return 0.0 if self.shortcut is None else self.shortcut.pixels(vectors)

    def add_shortcut(self, shortcut: Shortcut, *heads: nn.Module) -> None:
        """Add linear maps to the networks, and set the networks' last layers, `heads`, to zero."""
        self.shortcut = shortcut
        for parameter in (parameter for head in heads for parameter in head.parameters()):
            nn.init.zeros_(parameter)

    def start(self, batch: TrainingBatch) -> None:
        if self.shortcut is not None:
            self.shortcut.fit(batch.images, self.bottleneck)

    def squeeze(self, latents: Tensor, progress: float = 1.0) -> tuple[Tensor, Tensor]:
        """Pass latents (B, *position, D) through the bottleneck; return the vectors and the bottleneck's loss.

        progress: the completed share of the training, 0 to 1, which is compared with `Quantizer.used_from`.
        """
        position = latents.shape[1:-1]
        flat = latents.flatten(1, -2)
        if isinstance(self.bottleneck, Quantizer):
            quantized = self.bottleneck(flat)
            if self.training and progress < self.bottleneck.used_from:
                return self.bottleneck.unquantized(flat).unflatten(1, position), quantized.loss.detach() * 0
            return quantized.vectors.unflatten(1, position), quantized.loss
        vectors, loss = self.bottleneck(flat)
        return vectors.unflatten(1, position), loss

    def reconstruct(self, batch: TrainingBatch) -> Tensor:
        """Return the reconstructions (B, 3, H, W) of a batch's images; samples are drawn with the seeds 0 to B - 1."""
        return self.pixels(self.squeeze(self.latents(batch.images))[0], range(len(batch.images)))

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        vectors, own = self.squeeze(self.latents(batch.images), progress)
        return self.compare(self.pixels(vectors), batch.images, progress) | {"bottleneck": own}


class LearnedTokenizer(Tokenizer):
    """The tokenizer of a trained autoencoder.

    Tokens are indices if the bottleneck is a quantizer, and else the means of the latents' posterior as float16.
    prefixes: whether the first k tokens can be decoded. variable: whether the number of tokens differs between images.
    """

    def __init__(
        self, name: str, model: BottleneckAutoencoder, *, prefixes: bool = False, variable: bool = False
    ) -> None:
        self.model = model
        self.module = nn.ModuleDict({"model": model, **model.bases}) if model.bases else model
        bottleneck, discrete = model.bottleneck, isinstance(model.bottleneck, Quantizer)
        bits = bottleneck.groups * math.log2(bottleneck.codebook_size) if isinstance(bottleneck, Quantizer) else 16.0
        self.spec = TokenizerSpec(
            name,
            kind="discrete" if discrete else "continuous",
            range=(-1.0, 1.0),
            multiple=model.step,
            size=model.size,
            downsample=model.step if model.tokens is None else None,
            num_tokens=model.tokens,
            codebook={"codes": bottleneck.codebook_size} if isinstance(bottleneck, Quantizer) else {},
            bits_per_token=bits if discrete else bits * bottleneck.dim,
            variable=variable,
            prefixes=prefixes,
            modalities=model.modalities,
            causal=model.causal,
            temporal=model.temporal,
            first_frame=model.first_frame,
        )

    def encode(self, images: Tensor) -> Tokens:
        """Encode (B, 3, H, W) in [-1, 1] to indices (B, *position, G) or to float16 latents (B, *position, D)."""
        return self.tokens_of(self.model.latents(images))

    def tokens_of(self, latents: Tensor) -> Tokens:
        """Return the tokens of the bottleneck's inputs (B, *position, channels), as `encode`."""
        position = latents.shape[1:-1]
        flat, bottleneck = latents.flatten(1, -2), self.model.bottleneck
        if isinstance(bottleneck, Quantizer):
            indices = bottleneck(flat).indices
            if bottleneck.positions is None:
                indices = indices.unflatten(1, position)
            return Tokens.from_indices(indices, bottleneck.codebook_size, groups=bottleneck.groups)
        rows = bottleneck(flat)[0].unflatten(1, position)
        return Tokens.from_latents(rows, math.prod(position), channels_last=True)

    def vectors(self, tokens: Tokens) -> Tensor:
        """Return the inputs of the decoder, (B, *position, D), computed from the tokens alone."""
        data, bottleneck = tokens.tensor, self.model.bottleneck
        if not isinstance(bottleneck, Quantizer):
            return data.float()
        vectors = bottleneck.lookup(data.flatten(1, -2))
        return vectors if bottleneck.positions is not None else vectors.unflatten(1, data.shape[1:-1])

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        return self.model.pixels(self.vectors(tokens), seeds)

    def perturber(self, anchor: Anchor) -> Perturber:
        """Return the perturber that fits the bottleneck: codes, one of the extensions, or noise for latents.

        Raises NotApplicable where there is none for `anchor`.
        """
        bottleneck = self.model.bottleneck
        if not isinstance(bottleneck, Quantizer):
            return super().perturber(anchor)
        if isinstance(bottleneck, LFQ | BernoulliBits):
            return BitPerturber(self.spec.name, self.encode, self.model.latents, bottleneck, anchor)
        kind = "fsq" if isinstance(bottleneck, FSQ) else "grouped" if bottleneck.groups > 1 else "plain"
        return CodePerturber(self.encode, self.model.latents, bottleneck, anchor, kind)
