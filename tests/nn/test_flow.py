"""Flows: the velocity of normal data, and features that control a frozen network."""

from __future__ import annotations

import torch

from tokbench.nn.flow import FlowDecoder, gaussian_velocity


def test_the_velocity_of_normal_data_leads_to_normal_data() -> None:
    torch.manual_seed(0)
    x, mean, deviation = torch.randn(20_000, 2), torch.tensor([1.0, -2.0]), torch.tensor([0.5, 1.5])
    for step in range(100):
        x = x - gaussian_velocity(x, torch.full((len(x),), 1 - step / 100), mean, deviation) / 100
    assert torch.allclose(x.mean(0), mean, atol=0.05)
    assert torch.allclose(x.std(0), deviation, atol=0.05)


def test_one_step_leads_to_the_mean() -> None:
    noise = torch.randn(8, 3)
    assert torch.allclose(noise - gaussian_velocity(noise, torch.ones(8), 0.7, 2.0), torch.tensor(0.7), atol=1e-5)


def test_control_is_added_to_the_patches_after_the_first_blocks() -> None:
    torch.manual_seed(0)
    network = FlowDecoder(4, 3, 1, 16, 16, 2, 2, gate=1.0)
    torch.nn.init.xavier_uniform_(network.head.weight)
    given = torch.randn(2, 4, 3), torch.rand(2), torch.randn(2, 1, 16)
    plain = network(*given)
    assert torch.equal(network(*given, control=[torch.zeros(2, 4, 16)]), plain)
    assert not torch.allclose(network(*given, control=[torch.ones(2, 4, 16).cumsum(-1)]), plain)
