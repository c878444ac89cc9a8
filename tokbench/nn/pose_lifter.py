"""A transformer that lifts 2-D joints to 3-D, and removes frames inside and recovers them (HoT, H2OT).

MixSTE (arXiv:2203.00859): alternating attention over joints and over frames. HoT (arXiv:2311.12028) prunes the frames
before some block and recovers all frames at the end; H2OT prunes them progressively.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from tokbench.errors import AdapterError
from tokbench.nn.skeleton import JOINTS, draw_sequences
from tokbench.nn.trainable import Trainable, TrainingBatch
from tokbench.nn.vit import Attention, Block, initialise, random_parameter

Select = Literal["uniform", "cluster", "attention"]
Recover = Literal["interpolate", "attend"]

NEIGHBOURS = 2
"""Number of nearest neighbours of the density in the clustering."""

TRAINING_SEEDS = 2**31
"""Training draws seeds below this number; test sequences have larger ones."""


class PoseLifter(Trainable):
    """Maps 2-D joints (B, F, 17, 2) to 3-D joints (B, F, 17, 3) in metres.

    counts: number of frames that enter each pair of blocks (one over joints, one over frames); it never increases.
    select: how frames are chosen where it decreases: `uniform` (TPS), evenly spaced among those before; `cluster`
    (TPC), centres of density peaks of the frames' mean tokens; `attention` (TPA), those that receive most attention.
    recover: `interpolate` (TRI), 3-D joints of the remaining frames are interpolated linearly; `attend` (TRA), one
    learned query per frame attends to the remaining frames. Training draws new sequences in every step; the batch gives
    their number only. Raises AdapterError if these do not fit.
    """

    def __init__(
        self, frames: int, counts: Sequence[int], select: Select, recover: Recover, width: int, heads: int
    ) -> None:
        super().__init__()
        if not counts or any(later > one for one, later in zip((frames, *counts), counts, strict=False)):
            raise AdapterError(f"counts = {list(counts)}; give one for each block, at most {frames}, none increasing")
        if select not in ("uniform", "cluster", "attention") or recover not in ("interpolate", "attend"):
            raise AdapterError(
                f"select = {select!r}, recover = {recover!r}; give one of uniform, cluster, attention, and one of "
                "interpolate, attend"
            )
        if recover == "interpolate" and select != "uniform":
            raise AdapterError("only select = 'uniform' keeps the first and the last frame, which interpolation needs")
        if select == "attention" and counts[0] < frames:
            raise AdapterError("before the first block there is no attention by which frames could be selected")
        if min(counts) < NEIGHBOURS + 1:
            raise AdapterError(f"counts = {list(counts)}; each must be {NEIGHBOURS + 1} or more")
        self.frames, self.counts, self.select, self.recover = frames, tuple(counts), select, recover
        self.width, self.heads = width, heads
        self.embed, self.head = nn.Linear(2, width), nn.Linear(width, 3)
        self.joint_places, self.frame_places = random_parameter(JOINTS, width), random_parameter(frames, width)
        self.spatial = nn.ModuleList(Block(width, heads) for _ in counts)
        self.temporal = nn.ModuleList(Block(width, heads) for _ in counts)
        self.norm = nn.LayerNorm(width)
        if recover == "attend":
            self.queries, self.recovery = random_parameter(frames, width), Attention(width, heads)
        self.apply(initialise)

    def forward(self, points: Tensor) -> Tensor:
        """Map 2-D joints (B, F, 17, 2) to 3-D joints (B, F, 17, 3)."""
        x = self.embed(points) + self.joint_places + self.frame_places[:, None]
        kept = torch.arange(self.frames, device=x.device).expand(len(x), -1)
        for number, count in enumerate(self.counts):
            if count < x.shape[1]:
                chosen = self.chosen(x, count, number)
                x = x.gather(1, chosen[:, :, None, None].expand(-1, -1, *x.shape[2:]))
                kept = kept.gather(1, chosen)
            batch, frames = x.shape[:2]
            x = self.spatial[number](x.flatten(0, 1)).unflatten(0, (batch, frames))
            x = self.temporal[number](x.transpose(1, 2).flatten(0, 1)).unflatten(0, (batch, JOINTS)).transpose(1, 2)
        x = self.norm(x)
        if self.recover == "attend":
            return self.head(self.attended(x))
        poses = self.head(x)
        return poses if x.shape[1] == self.frames else interpolated(poses, kept, self.frames)

    def chosen(self, x: Tensor, count: int, number: int) -> Tensor:
        """Return which frames remain, sorted places (B, count) among those of `x` (B, F, 17, width).

        number: of the pair of blocks that they enter.
        """
        if self.select == "uniform":
            places = torch.linspace(0, x.shape[1] - 1, count, device=x.device).round().long()
            return places.expand(len(x), -1)
        pooled = x.detach().mean(2)
        scores = peak_scores(pooled) if self.select == "cluster" else self.received(pooled, number - 1)
        return scores.topk(count, dim=1).indices.sort(1).values

    def received(self, pooled: Tensor, number: int) -> Tensor:
        """Return the attention (B, F) that frames, as means over joints (B, F, width), receive in a block over frames,
        averaged over heads and queries."""
        block = self.temporal[number]
        assert isinstance(block, Block)
        normed = block.norm(pooled)
        query = block.attention.query(normed).unflatten(2, (self.heads, -1)).transpose(1, 2)
        key = block.attention.key_value(normed).chunk(2, 2)[0].unflatten(2, (self.heads, -1)).transpose(1, 2)
        return (query @ key.transpose(2, 3) * query.shape[-1] ** -0.5).softmax(-1).mean((1, 2))

    def attended(self, x: Tensor) -> Tensor:
        """Return all frames (B, F, 17, width): one query per frame attends to the remaining frames of its joint."""
        context = x.transpose(1, 2).flatten(0, 1)
        queries = self.queries.repeat(len(context), 1, 1)
        found = queries + self.recovery(queries, context=context)
        return found.unflatten(0, (len(x), JOINTS)).transpose(1, 2)

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        seeds = torch.randint(TRAINING_SEEDS, (len(batch.images),)).tolist()
        points, poses = (values.to(batch.images.device) for values in draw_sequences(seeds, self.frames))
        return {"mpjpe": joint_errors(self(points).float(), poses).mean()}

    def flops(self) -> int:
        """Return the FLOPs of one sequence: twice the multiply-adds of linear layers and of attention.

        The choice of frames and the interpolation count as 0.
        """
        width, total = self.width, 2 * 2 * self.width * self.frames * JOINTS
        for frames in self.counts:
            tokens = frames * JOINTS
            total += tokens * (2 * 24 * width**2 + 4 * width * (JOINTS + frames))
        recovered = self.frames if self.recover == "attend" else self.counts[-1]
        if self.recover == "attend":  # queries and outputs of all frames, keys and values of the remaining ones
            total += JOINTS * (self.frames * 4 * width**2 + self.counts[-1] * 4 * width**2)
            total += JOINTS * self.frames * self.counts[-1] * 4 * width
        return total + recovered * JOINTS * 2 * 3 * width


def joint_errors(found: Tensor, poses: Tensor) -> Tensor:
    """Return the mean per-joint position error (B,) of 3-D joints (B, F, 17, 3), in their unit."""
    return (found - poses).norm(dim=-1).mean((1, 2))


def peak_scores(frames: Tensor) -> Tensor:
    """Return the scores (B, F) of frames (B, F, D) as cluster centres, by density peaks (DPC-kNN).

    A score is the local density times the distance to the nearest denser frame; that of the densest frame is its
    largest distance. Frames of equal density are ordered by time.
    """
    distances = torch.cdist(frames.float(), frames.float()) * frames.shape[2] ** -0.5
    near = distances.topk(NEIGHBOURS + 1, dim=2, largest=False).values[:, :, 1:]
    density = (-near.square().mean(2)).exp() - 1e-6 * torch.arange(frames.shape[1], device=frames.device)
    denser = density[:, None] > density[:, :, None]
    nearest = distances.masked_fill(~denser, torch.inf).amin(2)
    return density * torch.where(denser.any(2), nearest, distances.amax(2))


def interpolated(poses: Tensor, kept: Tensor, frames: int) -> Tensor:
    """Return poses of all frames (B, F, 17, 3), linear between those of the remaining frames (B, f, 17, 3).

    kept: their places (B, f), sorted, the first 0 and the last F - 1.
    """
    time = torch.arange(frames, device=poses.device).expand(len(poses), -1).contiguous()
    right = torch.searchsorted(kept.contiguous(), time).clamp(1, kept.shape[1] - 1)
    before, after = (kept.gather(1, places) for places in (right - 1, right))
    share = ((time - before) / (after - before))[:, :, None, None]

    def at(places: Tensor) -> Tensor:
        return poses.gather(1, places[:, :, None, None].expand(-1, -1, *poses.shape[2:]))

    return at(right - 1) * (1 - share) + at(right) * share
