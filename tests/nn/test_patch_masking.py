"""Masked patches: the same number for every image, and features that return to their places."""

from __future__ import annotations

import pytest
import torch

from tokbench.nn.patch_masking import scatter_patches, select_patches, visible_patches

CPU = torch.device("cpu")


@pytest.mark.parametrize(("ratio", "kept"), [(0.0, 16), (0.25, 12), (0.999, 1)])
def test_every_image_keeps_as_many_patches_in_order(ratio: float, kept: int) -> None:
    torch.manual_seed(0)
    patches = visible_patches(6, 16, ratio, CPU)
    assert patches.shape == (6, kept) and patches.dtype == torch.int64
    assert (patches.diff(dim=1) > 0).all() and set(patches.unique().tolist()) <= set(range(16))
    assert kept == 16 or len(patches.unique(dim=0)) > 1  # drawn for each image


def test_features_return_to_their_places() -> None:
    torch.manual_seed(0)
    features = torch.randn(3, 16, 4)
    patches = visible_patches(3, 16, 0.5, CPU)
    placed, visible = scatter_patches(select_patches(features, patches), patches, 16)
    assert (visible.sum(1) == 8).all()
    assert torch.equal(placed[visible], features[visible])
    assert (placed[~visible] == 0).all()
