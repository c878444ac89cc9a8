"""The autoencoder of images and clips of OmniTokenizer (Wang et al., arXiv:2406.09399)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.errors import DataError
from tokbench.nn.autoencoders import bottleneck_channels
from tokbench.nn.masks import causal
from tokbench.nn.quantizers.bottleneck import Bottleneck
from tokbench.nn.shortcut import PatchShortcut, Shortcut, start_bottleneck
from tokbench.nn.tokenizer import BottleneckAutoencoder
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import Block, Shape, initialise, sincos_positions

Curriculum = Literal["image", "video", "joint"]


class TubeletShortcut(PatchShortcut):
    """Linear maps of tubelets of `frames` frames and `step` x `step` px, one latent per tubelet."""

    def __init__(self, bottleneck: Bottleneck, step: int, frames: int) -> None:
        Shortcut.__init__(self, bottleneck, 3 * frames * step**2)
        self.step, self.frames = step, frames

    def cut(self, images: Tensor) -> Tensor:
        """Cut clips (B, T, 3, H, W), T a multiple of `frames`, into vectors (B, T / frames, h, w, values)."""
        groups = images.unflatten(1, (-1, self.frames)).flatten(2, 3)
        return F.pixel_unshuffle(groups, self.step).movedim(2, -1)

    def paste(self, vectors: Tensor) -> Tensor:
        groups = F.pixel_shuffle(vectors.movedim(-1, 2), self.step)
        return groups.unflatten(2, (self.frames, 3)).flatten(1, 2)


class ClipShortcut(PatchShortcut):
    """Linear maps of the patches of images and first frames, and others of the tubelets of the later frames."""

    def __init__(self, bottleneck: Bottleneck, step: int, frames: int) -> None:
        super().__init__(bottleneck, step, grid=True)
        self.later = TubeletShortcut(bottleneck, step, frames)

    @torch.no_grad()
    def fit(self, images: Tensor, bottleneck: Bottleneck) -> None:
        """Fit both maps to images (B, 3, H, W) or clips (B, T, 3, H, W) in [-1, 1], with one codebook for both.

        Images leave the map of the later frames at zero. In clips, the map of the first frame is fitted to every
        `frames`-th frame, since an image may show what a first frame does not.
        """
        given: list[tuple[Shortcut, Tensor]] = [(self, images)]
        if images.dim() == 5:
            frames, count = self.later.frames, images.shape[1] - 1
            given = [(self, images[:, ::frames].flatten(0, 1))]
            given.append((self.later, images[:, 1 : 1 + count // frames * frames]))
        latents = []
        for part, items in given:
            part.fit_encoder(items, bottleneck)
            latents.append(part.into(part.cut(items).flatten(0, -2))[:, None])
        outputs = start_bottleneck(bottleneck, torch.cat(latents)).split([len(found) for found in latents])
        for (part, items), own in zip(given, outputs, strict=True):
            part.fit_decoder(items, own)

    def latents(self, images: Tensor) -> Tensor:
        if images.dim() == 4:
            return super().latents(images)
        first = super().latents(images[:, 0])[:, None]
        return torch.cat([first, self.later.latents(images[:, 1:])], 1)

    def pixels(self, vectors: Tensor) -> Tensor:
        if vectors.dim() == 4:
            return super().pixels(vectors)
        return torch.cat([super().pixels(vectors[:, 0])[:, None], self.later.pixels(vectors[:, 1:])], 1)


class SpatialBlock(nn.Module):
    """A transformer block within each frame: features (B, t, h, w, D) to the same shape.

    window: the side of the windows inside which attention stays, in tokens; None for the whole frame.
    """

    def __init__(self, width: int, heads: int, window: int | None = None) -> None:
        super().__init__()
        self.block, self.window = Block(width, heads), window

    def forward(self, x: Tensor) -> Tensor:
        batch, time, height, width, _ = x.shape
        window = self.window
        if window is None:
            return self.block(x.flatten(0, 1).flatten(1, 2)).view_as(x)
        cut = x.unflatten(3, (-1, window)).unflatten(2, (-1, window)).transpose(3, 4)
        mixed = self.block(cut.flatten(0, 3).flatten(1, 2))
        grid = mixed.view(batch, time, height // window, width // window, window, window, -1)
        return grid.transpose(3, 4).flatten(4, 5).flatten(2, 3)


class TemporalBlock(nn.Module):
    """A transformer block along time with causal attention: features (B, t, h, w, D) to the same shape.

    A causal depthwise convolution along time gives the positions, so that clips of any length can be processed.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.positions, self.block = nn.Conv1d(width, width, 3, groups=width), Block(width, heads)

    def forward(self, x: Tensor) -> Tensor:
        line = x.permute(0, 2, 3, 1, 4).flatten(0, 2)
        line = line + self.positions(F.pad(line.transpose(1, 2), (2, 0))).transpose(1, 2)
        mixed = self.block(line, causal(x.shape[1]).to(x.device))
        return mixed.unflatten(0, (x.shape[0], *x.shape[2:4])).permute(0, 3, 1, 2, 4)


class ClipEncoder(nn.Module):
    """Encodes images (B, 3, H, W) to features (B, h, w, out), and clips (B, 1 + n `frames`, 3, H, W) to features (B,
    1 + n, h, w, out). Spatial blocks, plain ones and then windowed ones, precede the temporal blocks."""

    def __init__(self, shape: Shape, out: int, frames: int, window: int) -> None:
        super().__init__()
        self.step, self.frames = shape.patch, frames
        values = 3 * shape.patch**2
        self.first, self.later = nn.Linear(values, shape.width), nn.Linear(frames * values, shape.width)
        self.positions = sincos_positions(shape.side, shape.width)
        spatial = [SpatialBlock(shape.width, shape.heads, window if late else None) for late in _halves(shape.depth)]
        temporal = [TemporalBlock(shape.width, shape.heads) for _ in range(shape.depth)]
        self.blocks = nn.Sequential(*spatial, *temporal)
        self.norm = nn.LayerNorm(shape.width)
        self.apply(initialise)
        self.head = nn.Linear(shape.width, out)

    def forward(self, images: Tensor) -> Tensor:
        clips = images if images.dim() == 5 else images[:, None]
        patches = self.first(F.pixel_unshuffle(clips[:, :1], self.step).movedim(2, -1))
        if clips.shape[1] > 1:
            groups = clips[:, 1:].unflatten(1, (-1, self.frames)).flatten(2, 3)
            patches = torch.cat([patches, self.later(F.pixel_unshuffle(groups, self.step).movedim(2, -1))], 1)
        found = self.head(self.norm(self.blocks(patches + self.positions.view(patches.shape[2:]))))
        return found if images.dim() == 5 else found[:, 0]


class ClipDecoder(nn.Module):
    """The mirror of `ClipEncoder`: temporal blocks, then spatial ones; the later frames have a head of their own."""

    def __init__(self, shape: Shape, dim: int, frames: int) -> None:
        super().__init__()
        self.step, self.frames = shape.patch, frames
        self.embed, self.positions = nn.Linear(dim, shape.width), sincos_positions(shape.side, shape.width)
        temporal = [TemporalBlock(shape.width, shape.heads) for _ in range(shape.depth)]
        spatial = [SpatialBlock(shape.width, shape.heads) for _ in range(shape.depth)]
        self.blocks = nn.Sequential(*temporal, *spatial)
        self.norm = nn.LayerNorm(shape.width)
        self.apply(initialise)
        values = 3 * shape.patch**2
        self.first, self.later = nn.Linear(shape.width, values), nn.Linear(shape.width, frames * values)

    def forward(self, vectors: Tensor) -> Tensor:
        latents = vectors if vectors.dim() == 5 else vectors[:, None]
        embedded = self.embed(latents)
        features = self.norm(self.blocks(embedded + self.positions.view(embedded.shape[2:])))
        clips = F.pixel_shuffle(self.first(features[:, :1]).movedim(-1, 2), self.step)
        if features.shape[1] > 1:
            groups = F.pixel_shuffle(self.later(features[:, 1:]).movedim(-1, 2), self.step)
            clips = torch.cat([clips, groups.unflatten(2, (self.frames, 3)).flatten(1, 2)], 1)
        return clips if vectors.dim() == 5 else clips[:, 0]


def _halves(count: int) -> list[bool]:
    """Return for each of `count` places whether it is in the second half."""
    return [2 * place >= count for place in range(count)]


class OmniAutoencoder(BottleneckAutoencoder):
    """One autoencoder of images and clips, with a token for each patch of an image or first frame, and for each tubelet
    of `frames` later frames. No token depends on later frames than its own, and no frame on later tokens.

    shape: each network has `depth` spatial and `depth` temporal blocks. window: the side of the encoder's windows in
    tokens. curriculum: what a training step on clips uses: "video" clips; "image" single frames, as many of each clip
    as it has tokens in time; "joint" frames for the share `images_until` of the training, then frames or clips with
    equal probability. A model of the curriculum "image" takes no clips in evaluation.
    Raises ValueError for an unknown curriculum, or if the windows do not divide the grid.
    """

    first_frame = True
    causal = True

    def __init__(
        self,
        bottleneck: Bottleneck,
        shape: Shape,
        *,
        frames: int = 4,
        window: int = 4,
        curriculum: Curriculum = "joint",
        images_until: float = 0.3,
    ) -> None:
        super().__init__()
        if curriculum not in get_args(Curriculum):
            raise ValueError(f"curriculum is {curriculum!r}; give one of {', '.join(get_args(Curriculum))}")
        if shape.side % window:
            raise ValueError(f"windows of {window} tokens do not divide a grid of {shape.side}x{shape.side}")
        self.size, self.step, self.temporal = shape.size, shape.patch, frames
        self.curriculum, self.images_until = curriculum, images_until
        self.modalities = ("image",) if curriculum == "image" else ("image", "video")
        self.encoder = ClipEncoder(shape, bottleneck_channels(bottleneck), frames, window)
        self.bottleneck, self.decoder = bottleneck, ClipDecoder(shape, bottleneck.dim, frames)
        shortcut = ClipShortcut(bottleneck, shape.patch, frames)
        self.add_shortcut(shortcut, self.encoder.head, self.decoder.first, self.decoder.later)

    def encoded(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        return self.decoder(vectors)

    def reconstruct(self, batch: TrainingBatch) -> Tensor:
        """Return the reconstructions of a batch's images or clips, in their shape."""
        items = batch.images
        if items.dim() == 5 and self.curriculum == "image":
            return self.rebuilt(items.flatten(0, 1))[0].view_as(items)
        return self.rebuilt(items)[0]

    def rebuilt(self, items: Tensor, progress: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return the reconstructions of images (B, 3, H, W) or clips (B, T, 3, H, W) of any length, and the loss of the
        bottleneck. progress: see `squeeze`."""
        vectors, own = self.squeeze(self.latents(self.filled(items)), progress)
        return self.pixels(vectors)[:, : items.shape[1]], own

    def filled(self, items: Tensor) -> Tensor:
        """Return clips (B, T, 3, H, W) continued by their last frame until the length is valid, and images as given."""
        missing = -(items.shape[1] - 1) % self.temporal if items.dim() == 5 else 0
        return torch.cat([items, items[:, -1:].expand(-1, missing, -1, -1, -1)], 1) if missing else items

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        """Raises DataError for images as training data, unless the curriculum is "image"."""
        items = batch.images
        if items.dim() == 4 and self.curriculum != "image":
            raise DataError(
                f"the curriculum {self.curriculum!r} needs clips, and the training data are images; give clips, such "
                'as sprites-train, or set curriculum = "image"'
            )
        if items.dim() == 5 and self.uses_frames(progress):
            items = self.some_frames(items)
        output, own = self.rebuilt(items, progress)
        return self.compare(output, items, progress) | {"bottleneck": own}

    def uses_frames(self, progress: float) -> bool:
        """Return whether the training step takes single frames instead of clips; at random in a joint training."""
        if self.curriculum != "joint":
            return self.curriculum == "image"
        return progress < self.images_until or float(torch.rand(())) < 0.5

    def some_frames(self, clips: Tensor) -> Tensor:
        """Return random frames of clips (B, T, 3, H, W) as images, as many of each as the clip has tokens in time."""
        count = 1 + -(-(clips.shape[1] - 1) // self.temporal)
        chosen = torch.rand(clips.shape[:2]).argsort(1)[:, :count].to(clips.device)
        return clips[torch.arange(len(clips), device=clips.device)[:, None], chosen].flatten(0, 1)

    def perceptual_term(self, image: Tensor, reference: Tensor, progress: float) -> dict[str, Tensor]:
        """Return the perceptual distance of images, or of one random frame of each clip."""
        if image.dim() == 5 and self.perceptual and progress >= self.perceptual_from:
            chosen = torch.randint(image.shape[1], (len(image),))
            rows = torch.arange(len(image))
            image, reference = image[rows, chosen], reference[rows, chosen]
        return super().perceptual_term(image, reference, progress)

    def start(self, batch: TrainingBatch) -> None:
        super().start(replace(batch, images=self.filled(batch.images)))
