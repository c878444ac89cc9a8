"""Parts of networks of voxels by their algebra."""

from __future__ import annotations

import torch

from tokbench.nn.voxels import TriplaneHead, VoxelPatches, cut_voxels, fourier, paste_voxels


def test_patches_are_cubes_in_row_major_order() -> None:
    values = torch.arange(2 * 3 * 4**3).reshape(2, 3, 4, 4, 4)
    patches = cut_voxels(values, 2)
    assert patches.shape == (2, 2, 2, 2, 24)
    assert torch.equal(patches[1, 0, 1, 1].reshape(3, 2, 2, 2), values[1, :, :2, 2:, 2:])
    assert torch.equal(paste_voxels(patches, 2), values)


def test_fourier_features_are_those_of_the_centres() -> None:
    features = fourier(4, 2).unflatten(1, (3, 4))  # axis; sines, then cosines
    point = torch.tensor([0.375, 0.125, 0.875])  # of the cell (1, 0, 3)
    angles = torch.pi * point[:, None] * torch.tensor([1.0, 2.0])
    assert torch.allclose(features[1 * 16 + 0 * 4 + 3], torch.cat([angles.sin(), angles.cos()], 1), atol=1e-6)


def test_a_patch_depends_on_its_own_voxels_alone() -> None:
    torch.manual_seed(0)
    patches, voxels = VoxelPatches(16, 8, 12), torch.full((1, 4, 16, 16, 16), -1.0)
    before = patches(voxels)
    assert before.shape == (1, 8, 12)
    voxels[0, :, 9, 2, 12] = 1.0
    changed = (patches(voxels) != before).any(2)[0]
    assert changed.nonzero().flatten().tolist() == [1 * 4 + 0 * 2 + 1]
    assert not torch.allclose(before[0, 0], before[0, 1])  # empty patches differ by their places


def test_points_have_the_values_of_the_grid() -> None:
    torch.manual_seed(0)
    head, features = TriplaneHead(8, 2, 3, 5), torch.randn(2, 12, 8)
    grid, points = head(features), torch.randint(6**3, (2, 40))
    assert grid.shape == (2, 4, 6, 6, 6)
    wanted = grid.flatten(2).gather(2, points[:, None].expand(-1, 4, -1)).transpose(1, 2)
    assert torch.allclose(head.at(features, points), wanted, atol=1e-6)


def test_a_position_of_a_plane_reaches_the_voxels_above_it() -> None:
    torch.manual_seed(0)
    head, features = TriplaneHead(8, 2, 3, 5), torch.randn(1, 12, 8)
    before, axes = head(features), ((2, 3), (2, 4), (3, 4))
    for plane, (row, column) in enumerate(axes):
        moved = features.clone()
        moved[0, 4 * plane + 2] += 1.0  # row 1, column 0 of the plane
        changed = (head(moved) != before).any(1, keepdim=True)
        expected = torch.zeros_like(changed)
        expected.narrow(row, 3, 3).narrow(column, 0, 3).fill_(True)
        assert torch.equal(changed, expected)
