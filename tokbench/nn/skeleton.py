"""Procedural motion of a skeleton, with exact 3-D joints and their noisy 2-D projections; seeds give the sequences.

The skeleton has the 17 joints of Human3.6M, whose data may not be redistributed. Its joints rotate by band-limited
random angles, which do not come from recordings of people.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
"""The parent of each joint: pelvis, right leg (3 joints), left leg (3), spine, thorax, neck, head, left arm (3), right
arm (3)."""

JOINTS = len(PARENTS)

BONES = (
    (0.0, 0.0, 0.0), (-0.13, 0.0, 0.0), (0.0, -0.45, 0.0), (0.0, -0.44, 0.0), (0.13, 0.0, 0.0), (0.0, -0.45, 0.0),
    (0.0, -0.44, 0.0), (0.0, 0.24, 0.0), (0.0, 0.25, 0.0), (0.0, 0.11, 0.0), (0.0, 0.11, 0.0), (0.16, 0.0, 0.0),
    (0.0, -0.28, 0.0), (0.0, -0.25, 0.0), (-0.16, 0.0, 0.0), (0.0, -0.28, 0.0), (0.0, -0.25, 0.0),
)  # fmt: skip
"""The vector from each joint's parent to the joint, in metres, if no joint is rotated; y points up."""

REACH = (0.15, 0.7, 0.8, 0.0, 0.7, 0.8, 0.0, 0.2, 0.2, 0.3, 0.0, 0.9, 0.9, 0.0, 0.9, 0.9, 0.0)
"""The largest amplitude of each of the waves of a joint's rotation vector, in radians."""

WAVES = 3
"""Number of sine waves that are added per angle."""

CYCLES = 3.0
"""Largest frequency of an angle, in cycles per sequence."""

NOISE = 0.01
"""Standard deviation of the error of 2-D joints; a person is about 0.7 high in the same unit."""


SEEDS = 2**32
"""Number of different seeds: torch's generator uses the lowest 32 bits of a seed only."""


def draw_sequences(seeds: Sequence[int], frames: int) -> tuple[Tensor, Tensor]:
    """Return 2-D joints (B, F, 17, 2) and 3-D joints (B, F, 17, 3) of one sequence per seed, from 0 to SEEDS - 1.

    3-D joints are in metres in the coordinates of the camera, relative to the pelvis. 2-D joints are their perspective
    projection plus noise, as a detector would find them. Raises ValueError for other seeds, whose sequences would be
    those of smaller ones.
    """
    if min(seeds) < 0 or max(seeds) >= SEEDS:
        raise ValueError(f"seeds {min(seeds)} to {max(seeds)}: give seeds from 0 to {SEEDS - 1}")
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    uniform = torch.stack([torch.rand(JOINTS * 3, WAVES, 3, generator=generator) for generator in generators])
    view = torch.stack([torch.rand(4, generator=generator) for generator in generators])
    noise = torch.stack([torch.randn(frames, JOINTS, 2, generator=generator) for generator in generators])
    time = torch.arange(frames) / frames
    frequency, phase, amplitude = (part[..., None] for part in uniform.unbind(-1))
    waves = (2 * amplitude - 1) * torch.sin(2 * math.pi * (frequency * CYCLES * time + phase))
    angles = waves.sum(2).unflatten(1, (JOINTS, 3)) * torch.tensor(REACH)[:, None, None]
    positions = _forward_kinematics(_rotations(angles.permute(0, 3, 1, 2)), view, time)
    distance = 4 + 2 * view[:, 3, None, None]
    depth = positions[..., 2] + distance
    points = 2 * positions[..., :2] / depth[..., None] + NOISE * noise
    return points, positions


def _rotations(vectors: Tensor) -> Tensor:
    """Return the rotation matrices (..., 3, 3) of rotation vectors (..., 3), by Rodrigues' formula."""
    angle = vectors.norm(dim=-1, keepdim=True).clamp(min=1e-8)
    x, y, z = (vectors / angle).unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    angle = angle[..., None]
    return torch.eye(3) + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)


def _forward_kinematics(local: Tensor, view: Tensor, time: Tensor) -> Tensor:
    """Return joints (B, F, 17, 3) relative to the pelvis, seen by the camera, from local rotations (B, F, 17, 3, 3).

    view: numbers (B, 4) in [0, 1): heading, turn during the sequence, elevation of the camera, distance.
    """
    heading = 2 * math.pi * view[:, 0, None] + (2 * view[:, 1, None] - 1) * math.pi / 2 * time
    elevation = (view[:, 2, None] - 0.5) * 0.6 * torch.ones_like(heading)
    zero = torch.zeros_like(heading)
    camera = _rotations(torch.stack([elevation, zero, zero], -1)) @ _rotations(torch.stack([zero, heading, zero], -1))
    rotations, positions = [camera @ local[:, :, 0]], [torch.zeros_like(local[:, :, 0, 0])]
    for joint in range(1, JOINTS):
        parent = PARENTS[joint]
        positions.append(positions[parent] + rotations[parent] @ torch.tensor(BONES[joint]))
        rotations.append(rotations[parent] @ local[:, :, joint])
    return torch.stack(positions, 2)
