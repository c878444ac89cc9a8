"""hita: holistic and then local tokens with causal order (Zheng et al., Hita, arXiv:2507.02358)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tokbench.nn.conv import ConvDecoder, ConvEncoder, channels_first, downsampling
from tokbench.nn.masks import causal
from tokbench.nn.quantizers.quantizer import nearest
from tokbench.nn.quantizers.segments import SegmentVQ
from tokbench.nn.shortcut import ImageShortcut, PatchShortcut
from tokbench.nn.teacher import DIM
from tokbench.nn.teacher_autoencoder import TeacherAutoencoder
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import Transformer, random_parameter, sincos_positions
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.tokens import Tokens
from tokbench.training.zoo import load_trained

SIDE, HEADS = 8, 4
LOCAL = SIDE * SIDE


class Hita(TeacherAutoencoder):
    """An autoencoder with H = `holistic` tokens of the whole image, followed by one local token for each 8x8 px.

    A transformer processes learned queries, the features of a frozen teacher and the features of a convolutional
    encoder; a second one, without the teacher's features, gives the latents of the queries and of the patches. A third
    one processes the codes, and its outputs at the positions H - `shift` to H - `shift` + 63 become the image.

    causal: whether the second and the third transformer use causal attention. depth, width: blocks of each transformer
    and their width. widths, stem: see `ConvEncoder`.

    Linear maps are added to the networks: those of the holistic tokens are fitted to images averaged to 16x16 px, those
    of the local tokens to what the quantized holistic tokens leave of each patch.
    """

    mask: Tensor | None

    def __init__(
        self,
        quantizer: SegmentVQ,
        holistic: int,
        causal_order: bool,
        shift: int,
        width: int,
        depth: int,
        widths: Sequence[int],
        stem: int,
    ) -> None:
        super().__init__(SIDE)
        assert 0 <= shift <= holistic, "the image is read from the positions of all but the last tokens"
        self.size, self.step, self.tokens = 8 * SIDE, downsampling(widths, stem), holistic + LOCAL
        self.holistic, self.shift, self.bottleneck = holistic, shift, quantizer
        self.encoder = ConvEncoder(width, widths, stem)
        self.positions, self.queries = sincos_positions(SIDE, width), random_parameter(holistic, width)
        self.semantic = nn.Sequential(nn.Linear(DIM, width), nn.GELU(), nn.Linear(width, width))
        self.mixer, self.reader = (Transformer(width, depth, HEADS) for _ in range(2))
        self.heads = nn.ModuleList(nn.Linear(width, quantizer.dim) for _ in quantizer.lengths)
        self.embeds = nn.ModuleList(nn.Linear(quantizer.dim, width) for _ in quantizer.lengths)
        self.places = random_parameter(holistic, width)
        self.asked = sincos_positions(SIDE, width)
        self.painter, self.decoder = Transformer(width, depth, HEADS), ConvDecoder(width, widths, stem)
        self.register_buffer("mask", causal(holistic + LOCAL) if causal_order else None, persistent=False)
        self.whole = ImageShortcut(quantizer.parts[0], holistic, self.size) if holistic else None
        local = PatchShortcut(quantizer.parts[-1], self.step, grid=False)
        self.add_shortcut(local, *self.heads, self.decoder.head[-1])

    @torch.no_grad()
    def start(self, batch: TrainingBatch) -> None:
        assert isinstance(self.bottleneck, SegmentVQ) and self.shortcut is not None
        rest = batch.images
        if self.whole is not None:
            self.whole.fit(rest, self.bottleneck.parts[0])
            rest = rest - self._coarse(self.whole, self.whole.latents(rest))
        self.shortcut.fit(rest, self.bottleneck.parts[-1])

    @torch.no_grad()
    def _coarse(self, whole: ImageShortcut, latents: Tensor) -> Tensor:
        """Return the linear part of the images (B, 3, H, W) that quantized holistic latents (B, H, D) give."""
        assert isinstance(self.bottleneck, SegmentVQ)
        quantizer = self.bottleneck.parts[0]
        chosen = nearest(quantizer.anchors(latents), quantizer.table())[..., 0]
        return whole.pixels(quantizer.lookup(chosen))

    def _learned(self, images: Tensor, features: Tensor) -> Tensor:
        """Return what the networks add to the linear part of the latents (B, H + 64, D)."""
        patches = self.encoder(images).flatten(2).transpose(1, 2) + self.positions
        queries = self.queries.expand(len(images), -1, -1)
        seen = self.mixer(torch.cat([queries, patches, self.semantic(features)], 1))
        read = self.reader(seen[:, : self.holistic + LOCAL], self.mask)
        return self._parts(self.heads, read)

    def _parts(self, maps: nn.ModuleList, sequence: Tensor) -> Tensor:
        """Apply one linear map to the holistic part of a sequence (B, N, width or D) and one to the local part."""
        assert isinstance(self.bottleneck, SegmentVQ)
        pieces = sequence.split(self.bottleneck.lengths, dim=1)
        return torch.cat([part(piece) for part, piece in zip(maps, pieces, strict=True)], 1)

    def latents_of(self, images: Tensor, features: Tensor) -> Tensor:
        assert self.shortcut is not None
        learned = self._learned(images, features)
        if self.whole is None:
            return learned + self.shortcut.latents(images)
        holistic = learned[:, : self.holistic] + self.whole.latents(images)
        rest = images - self._coarse(self.whole, holistic)
        return torch.cat([holistic, learned[:, self.holistic :] + self.shortcut.latents(rest)], 1)

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        features = self._parts(self.embeds, vectors) + torch.cat([self.places, self.asked])
        first = self.holistic - self.shift
        features = self.painter(features, self.mask)[:, first : first + LOCAL]
        return self.decoder(channels_first(features.unflatten(1, (SIDE, SIDE))))

    def linear_pixels(self, vectors: Tensor) -> Tensor | float:
        assert self.shortcut is not None
        local = self.shortcut.pixels(vectors[:, self.holistic :])
        return local if self.whole is None else local + self.whole.pixels(vectors[:, : self.holistic])

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        vectors, own = self.squeeze(self.latents_of(batch.images, self.given(batch)), progress)
        return self.compare(self.pixels(vectors), batch.images, progress) | {"bottleneck": own}


class HitaTokenizer(LearnedTokenizer):
    """The tokenizer of a trained `Hita`, whose holistic tokens can be taken from another image."""

    def swap(self, tokens: Tokens, others: Tokens) -> Tokens:
        assert isinstance(self.model, Hita)
        if not self.model.holistic:
            return super().swap(tokens, others)
        parts = [others.tensor[:, : self.model.holistic], tokens.tensor[:, self.model.holistic :]]
        return tokens.with_data(torch.cat(parts, 1))


def model(variant: AdapterConfig) -> Hita:
    """Build the untrained model that a TOML file describes."""
    given = dict(variant.config["model"])
    lengths = [given["holistic"], LOCAL] if given["holistic"] else [LOCAL]
    return Hita(SegmentVQ(lengths, **given.pop("quantizer")), **given)


def load(variant: AdapterConfig, device: str) -> HitaTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained or the teacher's weights are missing."""
    return HitaTokenizer(variant.name, load_trained(variant, model(variant)))
