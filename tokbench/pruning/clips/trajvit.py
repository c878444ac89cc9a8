"""A classifier of clips with one token for each trajectory of an object (TrajViT, arXiv:2505.23617), or with one for
each space-time patch."""

from __future__ import annotations

from functools import partial
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tokbench.errors import DataError
from tokbench.nn.vit import Attention, Shape, Transformer, initialise, mlp, random_parameter, sincos_positions
from tokbench.pruning.clips.network import ClipNetwork
from tokbench.pruning.clips.trajectories import from_masks, tracked

Source = Literal["oracle", "tracked", "patches"]

SIDE = 16
"""Cells per side in which the features of a frame are pooled."""


def waves(values: Tensor, width: int) -> Tensor:
    """Return sines and cosines (..., width) of values (...), `width` even, with wavelengths from 2 pi to 200 pi."""
    angles = values[..., None] / 100 ** (torch.arange(width // 2, device=values.device) / (width // 2))
    return torch.cat([angles.sin(), angles.cos()], -1)


class ResamplerLayer(nn.Module):
    """Attention of latents (B, 1, D) to a context (B, T, D), where `seen` (B, T) is True, and an MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm_mlp, self.mlp = nn.LayerNorm(width), mlp(width)

    def forward(self, x: Tensor, context: Tensor, seen: Tensor) -> Tensor:
        x = x + self.attention(self.norm(x), seen[:, None, None], context=context)
        return x + self.mlp(self.norm_mlp(x))


class Resampler(nn.Module):
    """Attention of one learned latent to the steps of a trajectory, in two layers: (B, T, D) to (B, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.latent, self.norm = random_parameter(1, width), nn.LayerNorm(width)
        self.layers = nn.ModuleList(ResamplerLayer(width, heads) for _ in range(2))
        self.apply(initialise)

    def forward(self, steps: Tensor, seen: Tensor) -> Tensor:
        """Return one vector for each trajectory. seen: bool (B, T), where it has steps; at least one."""
        x, context = self.latent.expand(len(steps), 1, -1), self.norm(steps)
        for layer in self.layers:
            x = layer(x, context, seen)
        return x[:, 0]


class TrajectoryTokens(nn.Module):
    """Tokens of trajectories: the sum of an appearance and a position, each of which is resampled over time.

    Appearance: the mean of convolutional features over the cells of the trajectory in a frame. Position: the sines of
    their centroid. most: the largest number of trajectories.
    """

    def __init__(self, shape: Shape, most: int) -> None:
        super().__init__()
        self.most, self.width = most, shape.width
        step = shape.size // SIDE
        self.features = nn.Sequential(
            nn.Conv2d(3, shape.width, step, stride=step),
            nn.GELU(),
            nn.Conv2d(shape.width, shape.width, 3, padding=1),
            nn.GELU(),
        )
        self.appearance, self.position = (Resampler(shape.width, shape.heads) for _ in range(2))

    def forward(self, clips: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens (B, most, D), and bool (B, most) where there is a trajectory.

        numbers: the trajectory of each cell, int64 (B, T, SIDE, SIDE). Raises DataError for a number of `most` or more.
        """
        if int(numbers.max()) >= self.most:
            raise DataError(f"a clip has {int(numbers.max()) + 1} trajectories, but the network takes {self.most}")
        features = self.features(clips.flatten(0, 1)).flatten(2).transpose(1, 2).unflatten(0, clips.shape[:2])
        members = F.one_hot(numbers.flatten(2), self.most).to(features.dtype).transpose(2, 3)  # (B, T, most, cells)
        areas = members.sum(3, keepdim=True)
        members = members / areas.clamp_min(1)
        seen = (areas[..., 0] > 0).transpose(1, 2)  # (B, most, T)
        present = seen.any(2)
        line = torch.arange(SIDE, device=clips.device, dtype=features.dtype)
        centroids = (members @ torch.cartesian_prod(line, line)).transpose(1, 2)
        looks = (members @ features).transpose(1, 2)
        # A trajectory that does not exist attends to all steps, since a row without any would be NaN.
        steps = (seen | ~present[..., None]).flatten(0, 1)
        times = waves(torch.arange(clips.shape[1], device=clips.device).to(looks.dtype), self.width)
        places = waves(centroids, self.width // 2).flatten(3)
        tokens = self.appearance((looks + times).flatten(0, 1), steps) + self.position(
            (places + times).flatten(0, 1), steps
        )
        return tokens.unflatten(0, present.shape), present


class PatchTokens(nn.Module):
    """Tokens of space-time patches of 2 frames and `shape.patch` x `shape.patch` px."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.patch, self.width = shape.patch, shape.width
        self.embed = nn.Linear(6 * shape.patch**2, shape.width)
        self.positions = sincos_positions(shape.side, shape.width)

    def forward(self, clips: Tensor) -> Tensor:
        """Return tokens (B, T / 2 * h * w, D). Raises DataError for an odd number of frames."""
        if clips.shape[1] % 2:
            raise DataError(
                f"patches of 2 frames do not divide {clips.shape[1]} frames; use a protocol with an even number"
            )
        groups = F.pixel_unshuffle(clips.unflatten(1, (-1, 2)).flatten(2, 3), self.patch)
        tokens = self.embed(groups.flatten(3).transpose(2, 3)) + self.positions
        times = waves(torch.arange(tokens.shape[1], device=clips.device).to(tokens.dtype), self.width)
        return (tokens + times[:, None]).flatten(1, 2)


class TrajectoryClassifier(ClipNetwork):
    """A transformer over the tokens of a clip and a CLS token.

    source: "oracle", trajectories from exact masks; "tracked", cheap trajectories of root x root clusters; "patches",
    space-time patches. most: the largest number of objects of a clip with exact masks, with the ground.
    Raises ValueError for an unknown source.
    """

    def __init__(self, shape: Shape, classes: int, *, source: Source, root: int = 4, most: int = 8) -> None:
        super().__init__(shape.size, classes)
        if source not in get_args(Source):
            raise ValueError(f"source is {source!r}; give one of {', '.join(get_args(Source))}")
        self.source, self.root = source, root
        if source == "patches":
            self.patches = PatchTokens(shape)
        else:
            self.trajectories = TrajectoryTokens(shape, most if source == "oracle" else root**2)
        self.cls, self.body = random_parameter(1, shape.width), Transformer(shape.width, shape.depth, shape.heads)
        self.head = nn.Linear(shape.width, classes)

    def forward(self, clips: Tensor, masks: Tensor | None = None) -> Tensor:
        if self.source == "patches":
            tokens = self.patches(clips)
            present = torch.ones(tokens.shape[:2], dtype=torch.bool, device=clips.device)
        else:
            tokens, present = self.trajectories(clips, self.numbers(clips, masks))
        x = torch.cat([self.cls.expand(len(clips), 1, -1), tokens], 1)
        return self.head(self.body(x, F.pad(present, (1, 0), value=True)[:, None, None])[:, 0])

    def numbers(self, clips: Tensor, masks: Tensor | None) -> Tensor:
        """Return the trajectory of each cell, int64 (B, T, SIDE, SIDE). Raises DataError if exact masks are missing."""
        if self.source == "tracked":
            return self.measured(partial(tracked, clips, self.root, SIDE), str(clips.device))
        if masks is None:
            raise DataError("exact trajectories need masks, and the data have none; use sprites at their own size")
        return from_masks(masks, SIDE)

    def tokens(self, clips: Tensor, masks: Tensor | None = None) -> Tensor:
        if self.source == "patches":
            return torch.full((len(clips),), self.patches(clips).shape[1])
        numbers = self.numbers(clips, masks).flatten(1)
        return F.one_hot(numbers, int(numbers.max()) + 1).amax(1).sum(1)

    def flops(self, frames: int) -> int:
        """Return the FLOPs of one clip with the largest number of tokens, by PyTorch's counter."""
        weight = self.head.weight
        clip = torch.zeros(1, frames, 3, self.size, self.size, device=weight.device)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self(clip, torch.zeros_like(clip[:, :, 0], dtype=torch.uint8))
        return int(counter.get_total_flops())
