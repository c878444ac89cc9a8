"""atoken: one network for images, clips and voxels, as sparse sets of patches with coordinates in time and space
(AToken, arXiv:2509.14476)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.metric_names import Modality
from tokbench.modalities.shapes.sources import GRID, Solids
from tokbench.modalities.video.sources import Sprites
from tokbench.nn.losses import gram_distance
from tokbench.nn.quantizers.kl import KL
from tokbench.nn.rotary import RotaryTransformer, pack, unpack
from tokbench.nn.tokenizer import BottleneckAutoencoder, LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.voxels import cut_voxels, paste_voxels
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained

PATCH, FRAMES, CLIP = 8, 4, 16
"""Pixels or voxels per side of a patch, frames per patch, and frames of a clip in training."""

ITEMS = 1024
"""Number of clips and of shapes that are used in training."""


@dataclass
class Pool:
    """The first `ITEMS` items of synthetic training data, computed when they are first drawn.

    make: returns the levels of an item, uint8, by its position.
    """

    make: Callable[[int], Tensor]

    def __post_init__(self) -> None:
        self._made: dict[int, Tensor] = {}

    def draw(self, count: int, device: torch.device) -> Tensor:
        """Return `count` random items in [-1, 1]; torch's global generator chooses them."""
        chosen = torch.randint(ITEMS, (count,)).tolist()
        for position in chosen:
            if position not in self._made:
                self._made[position] = self.make(position)
        return torch.stack([self._made[position] for position in chosen]).to(device).float().div_(127.5).sub_(1)


def _clip(position: int) -> Tensor:
    frames = Sprites("train", ITEMS).clip(position, CLIP, 1).frames
    return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()


def _shape(position: int) -> Tensor:
    return torch.from_numpy(Solids("train", ITEMS).voxels(position, GRID))


POOLS: dict[str, Pool] = {"video": Pool(_clip), "shape": Pool(_shape)}
"""The training data of the modalities that are added to images, shared by all models of a process."""


def cut_clips(clips: Tensor) -> Tensor:
    """Cut clips (B, T, 3, H, W) into patches (B, t, h, w, values) of `FRAMES` frames and `PATCH` x `PATCH` px."""
    values = clips.unflatten(1, (-1, FRAMES)).unflatten(4, (-1, PATCH)).unflatten(6, (-1, PATCH))
    return values.permute(0, 1, 4, 6, 2, 3, 5, 7).flatten(4)


def paste_clips(patches: Tensor) -> Tensor:
    """Return the clips (B, T, 3, H, W) of patches (B, t, h, w, values), the inverse of `cut_clips`."""
    values = patches.unflatten(4, (FRAMES, 3, PATCH, PATCH)).permute(0, 1, 4, 5, 2, 6, 3, 7)
    return values.flatten(6, 7).flatten(4, 5).flatten(1, 2)


def coordinates(modality: Modality, position: Sequence[int], device: torch.device) -> Tensor:
    """Return the coordinates (N, 4) in time and space (t, x, y, z) of a grid of patches.

    position: (h, w) of images, (t, h, w) of clips, or (n, n, n) of voxels.
    """
    axes = {"image": (2, 1), "video": (0, 2, 1), "shape": (1, 2, 3)}[modality]
    grid = torch.meshgrid(*(torch.arange(length, device=device) for length in position), indexing="ij")
    found = torch.zeros(*position, 4, device=device)
    for axis, values in zip(axes, grid, strict=True):
        found[..., axis] = values.float()
    return found.flatten(0, -2)


class AToken(BottleneckAutoencoder):
    """An autoencoder with one encoder, bottleneck and decoder for images, clips and voxels.

    Patches of images and clips are embedded by one linear map, an image being a clip whose other frames are 0, and
    those of voxels by a second one. Empty patches of voxels are left out: their latents are 0. Latents are (B, h, w, D)
    for images, (B, t, h, w, D) for clips and (B, 1, n, n, n, D) for voxels.

    extra: the number of clips (`video`) and shapes (`shape`) in a training step for each image. gram: weight of the
    Gram loss.
    """

    step = PATCH

    def __init__(
        self, width: int, encoder: int, decoder: int, heads: int, kl: KL, extra: dict[str, float], gram: float
    ) -> None:
        super().__init__()
        self.bottleneck, self.extra, self.gram = kl, dict(extra), gram
        self.modalities = ("image", *cast("list[Modality]", list(extra)))
        self.temporal = FRAMES if "video" in extra else 1
        pixels, voxels = FRAMES * 3 * PATCH**2, 4 * PATCH**3
        self.embed = nn.ModuleDict({"video": nn.Linear(pixels, width)})
        self.heads = nn.ModuleDict({"video": nn.Linear(width, pixels)})
        if "shape" in extra:
            self.embed["shape"], self.heads["shape"] = nn.Linear(voxels, width), nn.Linear(width, voxels)
        self.encoder = RotaryTransformer(width, encoder, heads)
        self.to_latents, self.from_latents = nn.Linear(width, 2 * kl.dim), nn.Linear(kl.dim, width)
        self.decoder = RotaryTransformer(width, decoder, heads)

    def encoded(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W), clips (B, T, 3, H, W) or voxels (B, 4, D, D, D) to means and log-variances."""
        if images.dim() == 4:
            frames = F.pad(images[:, None], (0, 0, 0, 0, 0, 0, 0, FRAMES - 1))
            return self.encode_patches("image", cut_clips(frames)[:, 0])
        if images.shape[2] == 3:
            return self.encode_patches("video", cut_clips(images))
        patches = cut_voxels((images + 1) / 2, PATCH)
        return self.encode_patches("shape", patches, occupied_patches(images).flatten(1))[:, None]

    def encode_patches(self, modality: Modality, patches: Tensor, keep: Tensor | None = None) -> Tensor:
        """Encode patches (B, *position, values), of which only those are read where `keep` (B, N) is True."""
        position = patches.shape[1:-1]
        features = self.embed["shape" if modality == "shape" else "video"](patches.flatten(1, -2))
        latents = self.to_latents(self.attend(self.encoder, modality, features, position, keep))
        if keep is not None:
            latents = latents * keep[..., None]
        return latents.unflatten(1, position)

    def attend(
        self, body: nn.Module, modality: Modality, features: Tensor, position: Sequence[int], keep: Tensor | None
    ) -> Tensor:
        """Pass features (B, N, width) of a grid of patches through a transformer; those that are left out are 0."""
        places = coordinates(modality, position, features.device).expand(len(features), -1, -1)
        if keep is None:
            return body(features, places)
        order, exists = pack(keep)
        chosen, where = (
            values.gather(1, order[..., None].expand(-1, -1, values.shape[2])) for values in (features, places)
        )
        mask = exists.clone()
        mask[:, 0] = True  # an item without any patch attends to one that is discarded
        return unpack(body(chosen, where, mask), order, exists, features.shape[1])

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Decode latents of one of the three forms to items in [-1, 1]; the colours of empty voxels are -1."""
        if vectors.dim() == 6:
            values = self.voxel_values(vectors, (vectors != 0).any(-1).flatten(1)).float()
            occupancy, colours = values[:, :1], values[:, 1:]
            return torch.cat([(occupancy / 2).tanh(), torch.where(occupancy > 0, (colours / 2).tanh(), -1.0)], 1)
        if vectors.dim() == 4:
            return paste_clips(self.decode_patches("image", vectors)[:, None])[:, 0]
        return paste_clips(self.decode_patches("video", vectors))

    def decode_patches(self, modality: Modality, vectors: Tensor, keep: Tensor | None = None) -> Tensor:
        """Decode latents (B, *position, D) to patches (B, *position, values)."""
        position = vectors.shape[1:-1]
        features = self.attend(self.decoder, modality, self.from_latents(vectors.flatten(1, -2)), position, keep)
        return self.heads["shape" if modality == "shape" else "video"](features).unflatten(1, position)

    def voxel_values(self, vectors: Tensor, keep: Tensor) -> Tensor:
        """Return logits of occupancy and colours (B, 4, D, D, D); the occupancy of patches that are left out is -20."""
        patches = self.decode_patches("shape", vectors[:, 0], keep)
        empty = ~keep.reshape(patches.shape[:-1])[..., None]
        return paste_voxels(torch.where(empty, -20.0, patches), PATCH)

    def perceptual_term(self, image: Tensor, reference: Tensor, progress: float) -> dict[str, Tensor]:
        if not self.perceptual or progress < self.perceptual_from:
            return {}
        helper: Any = self.helpers["perceptual"]
        found, expected = helper.features(image, reference)
        terms = {"perceptual": self.perceptual * helper.distance(found, expected)}
        return terms | ({"gram": self.gram * gram_distance(found, expected)} if self.gram else {})

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        """Return the terms of the images, and those of the clips and shapes that are added to them."""
        terms = super().loss(batch, progress)
        for name, share in self.extra.items():
            items = POOLS[name].draw(max(1, round(share * len(batch.images))), batch.images.device)
            terms |= self.clip_terms(items) if name == "video" else self.shape_terms(items)
        return terms

    def clip_terms(self, clips: Tensor) -> dict[str, Tensor]:
        """Return the squared error of clips (B, T, 3, H, W) and the divergence of their latents."""
        vectors, own = self.squeeze(self.latents(clips))
        return {"clips": (self.pixels(vectors).float() - clips).square().mean(), "clips divergence": own}

    def shape_terms(self, voxels: Tensor) -> dict[str, Tensor]:
        """Return the cross-entropy of the occupancy in patches that are not empty, the squared error of the colours of
        occupied voxels, and the divergence of the latents."""
        vectors, own = self.squeeze(self.latents(voxels))
        keep = occupied_patches(voxels)
        values = self.voxel_values(vectors, keep.flatten(1)).float()
        occupied = (voxels[:, :1] > 0).float()
        inside = keep.float()[:, None]
        for axis in (2, 3, 4):
            inside = inside.repeat_interleave(PATCH, axis)
        entropy = F.binary_cross_entropy_with_logits(values[:, :1], occupied, reduction="none")
        errors = ((values[:, 1:] / 2).tanh() - voxels[:, 1:]).square() * occupied
        return {
            "occupancy": (entropy * inside).sum() / inside.sum().clamp(min=1),
            "colour": errors.sum() / (3 * occupied.sum()).clamp(min=1),
            "shapes divergence": own,
        }


def occupied_patches(voxels: Tensor) -> Tensor:
    """Return which patches of voxels (B, 4, D, D, D) in [-1, 1] are not empty, bool (B, n, n, n)."""
    return F.max_pool3d((voxels[:, 0] > 0).float(), PATCH) > 0


def model(variant: AdapterConfig) -> AToken:
    """Build the untrained model that a TOML file describes."""
    given = dict(variant.config["model"])
    kl = KL(given.pop("channels"), given.pop("divergence"))
    return AToken(kl=kl, extra=given.pop("extra", {}), **given)


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
