"""The frozen network of training losses, and its first stages as a part of a model."""

from __future__ import annotations

import pytest
import torch

from tokbench.errors import MissingWeights
from tokbench.nn.frozen_network import FirstStages, efficientnet


@pytest.mark.parametrize(("count", "width", "stride"), [(1, 16, 2), (3, 40, 8)])
def test_the_first_stages_are_those_of_the_network(count: int, width: int, stride: int) -> None:
    try:
        network = efficientnet("cpu")
    except MissingWeights as error:
        pytest.skip(str(error))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    stages = FirstStages(count)
    features = stages(2 * images - 1)
    assert features.shape == (2, width, 64 // stride, 64 // stride) and stages.width == width
    expected = network.stages((images * 255 - 127) / 128)[count - 1]
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in stages.parameters())
    assert sum(parameter.numel() for parameter in stages.parameters()) < 100_000
