"""Voxels: cutting into patches, embedding, and decoding with planes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tokbench.nn.vit import initialise


def cut_voxels(values: Tensor, step: int) -> Tensor:
    """Cut values (B, C, D, D, D) into patches (B, n, n, n, C * step^3) of `step` voxels per side, n = D / step."""
    for axis in (2, 4, 6):
        values = values.unflatten(axis, (-1, step))
    return values.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)


def paste_voxels(patches: Tensor, step: int) -> Tensor:
    """Return the values (B, C, D, D, D) of patches (B, n, n, n, C * step^3), the inverse of `cut_voxels`."""
    values = patches.unflatten(4, (-1, step, step, step)).permute(0, 4, 1, 5, 2, 6, 3, 7)
    return values.flatten(6, 7).flatten(4, 5).flatten(2, 3)


def fourier(cells: int, octaves: int) -> Tensor:
    """Return sines and cosines (cells^3, 6 * octaves) of the centres of a grid of cells in [0, 1].

    The frequencies are pi, 2 pi, 4 pi and so on, along each axis (NeRF, arXiv:2003.08934).
    """
    axis = (torch.arange(cells) + 0.5) / cells
    centres = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).flatten(0, 2)
    angles = centres[..., None] * math.pi * 2.0 ** torch.arange(octaves)
    return torch.cat([angles.sin(), angles.cos()], -1).flatten(1)


class VoxelPatches(nn.Module):
    """Embeds voxels (B, 4, D, D, D) in [-1, 1] as one feature per patch with its position, (B, (D / patch)^3, width).

    A layer of `fine` values per half patch precedes that of whole patches.
    """

    places: Tensor

    def __init__(self, side: int, patch: int, width: int, fine: int = 32, octaves: int = 3) -> None:
        super().__init__()
        self.half_patch = patch // 2
        self.fine = nn.Linear(4 * self.half_patch**3, fine)
        self.embed = nn.Linear(8 * fine + 6 * octaves, width)
        self.register_buffer("places", fourier(side // patch, octaves), persistent=False)
        self.apply(initialise)

    def forward(self, voxels: Tensor) -> Tensor:
        halves = self.fine(cut_voxels((voxels + 1) / 2, self.half_patch)).relu()  # 0 in empty voxels
        patches = cut_voxels(halves.permute(0, 4, 1, 2, 3), 2).flatten(1, 3)
        return self.embed(torch.cat([patches, self.places.expand(len(patches), -1, -1)], 2))


class TriplaneHead(nn.Module):
    """Maps three planes of features to values of points (EG3D, arXiv:2112.07945, with one sum per voxel).

    A plane has side x side positions in row-major order, each with a feature of `width` values, from which
    scale x scale cells of `channels` values are computed. A voxel has the sum of its three cells, in the planes (x, y),
    (x, z) and (y, z), which a network with one hidden layer maps to 4 values.
    """

    def __init__(self, width: int, side: int, scale: int, channels: int) -> None:
        super().__init__()
        self.side, self.scale = side, scale
        self.cells = nn.Linear(width, channels * scale**2)
        self.network = nn.Sequential(nn.GELU(), nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, 4))
        self.apply(initialise)

    def planes(self, features: Tensor) -> Tensor:
        """Map features (B, 3 * side^2, width) to planes (B, 3, D, D, channels), D = side * scale."""
        cells = self.cells(features).unflatten(1, (3, self.side, self.side)).unflatten(4, (-1, self.scale, self.scale))
        return cells.permute(0, 1, 2, 5, 3, 6, 4).flatten(4, 5).flatten(2, 3)

    def at(self, features: Tensor, points: Tensor) -> Tensor:
        """Return the values (B, P, 4) of the voxels with the flat indices `points`, int64 (B, P)."""
        planes = self.planes(features)
        extent = planes.shape[2]
        x, y, z = points // extent**2, points // extent % extent, points % extent
        pairs = zip(planes.flatten(2, 3).unbind(1), ((x, y), (x, z), (y, z)), strict=True)
        cells = [
            plane.gather(1, (row * extent + column)[..., None].expand(-1, -1, plane.shape[2]))
            for plane, (row, column) in pairs
        ]
        return self.network(cells[0] + cells[1] + cells[2])

    def forward(self, features: Tensor) -> Tensor:
        """Return the values (B, 4, D, D, D) of all voxels."""
        front, top, right = self.planes(features).unbind(1)
        total = front[:, :, :, None] + top[:, :, None] + right[:, None]
        return self.network(total).permute(0, 4, 1, 2, 3)
