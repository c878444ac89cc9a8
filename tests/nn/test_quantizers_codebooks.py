"""Learned codebooks by their algebra: what they must give where the answer is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.nn.quantizers.product import ProductVQ, disentangle
from tokbench.nn.quantizers.quantizer import distances, entropy_loss
from tokbench.nn.quantizers.simvq import SimVQ
from tokbench.nn.quantizers.vq import VectorQuantizer


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def clusters(count: int = 60) -> Tensor:
    """Latents (2, count, 2) around (3, 0) and (0, 3)."""
    return torch.eye(2)[:, None] * 3 + 0.2 * torch.randn(2, count, 2)


def test_normalised_vq_sees_directions_only() -> None:
    quantizer, latents = VectorQuantizer(16, 4), torch.randn(2, 30, 4)
    quantized = quantizer(latents)
    torch.testing.assert_close(quantized.vectors.norm(dim=-1), torch.ones(2, 30))
    assert torch.equal(quantizer(7 * latents).indices, quantized.indices)
    with torch.no_grad():
        quantizer.codebook.mul_(torch.rand(16, 1) + 0.5)
    assert torch.equal(quantizer(latents).indices, quantized.indices)
    torch.testing.assert_close(quantizer.lookup(quantized.indices), quantized.vectors)


@pytest.mark.parametrize("update, weight", [("gradient", 1.25), ("ema", 0.25)])
def test_loss_is_the_weighted_distance(update: Any, weight: float) -> None:
    quantizer, latents = VectorQuantizer(16, 4, normalised=False, update=update).eval(), torch.randn(2, 30, 4)
    quantized = quantizer(latents)
    assert quantized.loss.item() == pytest.approx(weight * F.mse_loss(quantized.vectors, latents).item())
    quantizer.entropy = 0.3
    more = 0.3 * entropy_loss(distances(latents[:, :, None], quantizer.table()), 0.01)
    assert quantizer(latents).loss.item() == pytest.approx(quantized.loss.item() + more.item())


def test_codebook_loss_moves_used_entries_to_their_latents() -> None:
    quantizer, latents = VectorQuantizer(64, 4, normalised=False, commitment=0), torch.randn(1, 20, 4)
    quantized = quantizer(latents)
    (grad,) = torch.autograd.grad(quantized.loss, quantizer.codebook)
    wanted = torch.zeros(64, 4).index_add_(0, quantized.indices.flatten(), 2 * (quantized.vectors - latents)[0] / 80)
    torch.testing.assert_close(grad, wanted.detach())


def test_running_means_without_memory_are_cluster_means() -> None:
    quantizer, latents = VectorQuantizer(3, 2, normalised=False, update="ema", decay=0.0), clusters()
    quantizer.codebook.copy_(torch.tensor([[2.0, 0.0], [0.0, 2.0], [-9.0, -9.0]]))
    quantizer.eval()(latents)
    assert quantizer.codebook[0].tolist() == [2, 0]
    quantizer.train()(latents)
    torch.testing.assert_close(quantizer.codebook[:2], latents.mean(1), rtol=0, atol=1e-4)
    assert quantizer.codebook[2].tolist() == [-9, -9]  # nobody's: it stays


def test_running_means_remember_by_their_decay() -> None:
    quantizer, latents = VectorQuantizer(2, 2, normalised=False, update="ema", decay=0.9), clusters()
    quantizer.codebook.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    quantizer.sums.copy_(quantizer.codebook)
    quantizer(latents)
    old = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    wanted = (0.9 * old + 0.1 * latents.sum(1)) / (0.9 + 0.1 * 60)
    torch.testing.assert_close(quantizer.codebook, wanted, rtol=0, atol=1e-4)


def test_an_entry_that_loses_its_mass_stays() -> None:
    quantizer = VectorQuantizer(2, 2, normalised=False, update="ema", decay=0.5)
    quantizer.codebook.copy_(torch.tensor([[3.0, 0.0], [0.0, 3.0]]))
    quantizer.sums.copy_(quantizer.codebook)
    for _ in range(60):
        quantizer(torch.tensor([[[3.0, 0.0]]]))
    assert quantizer.masses[1] < 1e-6
    assert quantizer.codebook[1].tolist() == [0, 3]


@pytest.mark.parametrize("update", ["gradient", "ema"])
@pytest.mark.parametrize("normalised", [False, True])
def test_restarts_revive_dead_entries(update: Any, normalised: bool) -> None:
    quantizer = VectorQuantizer(16, 2, normalised=normalised, update=update, restart_after=3, decay=1.0)
    start = torch.tensor([[1.0, 1.0]] * 2 + [[-5.0, -5.0]] * 14)
    with torch.no_grad():
        quantizer.codebook.copy_(start)
        if update == "ema":
            quantizer.sums.copy_(start)
    latents = clusters()
    for _ in range(2):
        assert quantizer(latents).statistics["used"] == 1 / 16
    quantizer.eval()(latents)  # does not count
    quantizer.train()
    torch.testing.assert_close(quantizer.codebook.detach(), start, rtol=1e-4, atol=0)
    quantizer(latents)
    choices = quantizer.anchors(latents).flatten(0, 2)
    revived = quantizer.codebook.detach()[1:].clone()
    assert ((revived[:, None] - choices).abs().amax(-1) == 0).any(1).all()
    assert len(revived.unique(dim=0)) == 15  # different latents, since there are enough
    torch.testing.assert_close(quantizer.codebook.detach()[0], start[0], rtol=1e-4, atol=0)
    assert quantizer(latents).statistics["used"] > 0.5
    torch.testing.assert_close(quantizer.codebook.detach()[1:], revived, rtol=1e-3, atol=1e-3)  # and they are not lost


def test_a_used_entry_is_not_restarted_however_little() -> None:
    quantizer = VectorQuantizer(2, 1, normalised=False, restart_after=1)
    with torch.no_grad():
        quantizer.codebook.copy_(torch.tensor([[-1.0], [1.0]]))
    for _ in range(3):
        quantizer(torch.tensor([[[-0.5], [0.5]]]))
    assert quantizer.codebook.flatten().tolist() == [-1, 1]


def test_a_restarted_entry_has_its_time_again() -> None:
    quantizer = VectorQuantizer(2, 1, normalised=False, restart_after=2)
    with torch.no_grad():
        quantizer.codebook.copy_(torch.tensor([[0.0], [-9.0]]))
    places = []
    for place in (1.0, 2.0, 0.25, 0.5):  # all of them nearest to the other entry, at 0
        quantizer(torch.full((1, 1, 1), place))
        places.append(quantizer.codebook[1].item())
    assert places == [-9, 2, 2, 0.5]
    assert quantizer.codebook[0].item() == 0


def test_a_restarted_entry_begins_its_mean_anew() -> None:
    quantizer = VectorQuantizer(2, 1, normalised=False, update="ema", decay=0.5, restart_after=3)
    quantizer.codebook.copy_(torch.tensor([[0.0], [-9.0]]))
    quantizer.sums.copy_(quantizer.codebook)
    latents = torch.tensor([[[4.0], [4.0]]])
    for _ in range(3):
        quantizer(latents)
    assert quantizer.codebook[1].item() == 4
    with torch.no_grad():
        quantizer.codebook[0] = -99.0
    quantizer(latents + 3)
    assert quantizer.codebook[1].item() == pytest.approx((0.5 * 4 + 0.5 * 14) / (0.5 + 0.5 * 2), abs=1e-3)


def test_restarts_do_with_fewer_latents_than_dead_entries() -> None:
    quantizer = VectorQuantizer(16, 2, normalised=False, restart_after=1)
    latents = torch.randn(1, 3, 2)
    used = quantizer(latents).indices.unique().tolist()
    dead = [entry for entry in range(16) if entry not in used]
    assert len(quantizer.codebook.detach()[dead].unique(dim=0)) == 3


@pytest.mark.parametrize(
    "options",
    [{"update": "sometimes"}, {"gradient": "none"}, {"decay": 1.5}, {"restart_after": 0}],
    ids=lambda options: next(iter(options)),
)
def test_vq_refuses_what_makes_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        VectorQuantizer(4, 2, **options)


# SimVQ


def test_simvq_moves_all_entries_and_no_base() -> None:
    quantizer, latents = SimVQ(64, 4), torch.randn(1, 5, 4)
    base, before = quantizer.base.clone(), quantizer.table().detach().clone()
    assert [name for name, _ in quantizer.named_parameters()] == ["map.weight"]
    optimiser = torch.optim.SGD(quantizer.parameters(), lr=1.0)
    first = quantizer(latents)
    first.loss.backward()
    optimiser.step()
    assert torch.equal(quantizer.base, base)
    moved = (quantizer.table().detach() - before).abs().amax(-1)[0]
    assert (moved > 1e-5).all() and first.statistics["used"] < 0.1
    assert quantizer(latents).loss < first.loss


# ProductVQ


def test_products_are_vqs_side_by_side() -> None:
    quantizer, latents = ProductVQ(3, 16, 12), torch.randn(2, 10, 12)
    whole = quantizer(latents)
    parts = [part(piece) for part, piece in zip(quantizer.parts, latents.chunk(3, dim=-1), strict=True)]
    assert torch.equal(whole.vectors, torch.cat([one.vectors for one in parts], dim=-1))
    assert torch.equal(whole.indices, torch.cat([one.indices for one in parts], dim=-1))
    assert whole.loss.item() == pytest.approx(sum(one.loss.item() for one in parts))
    with pytest.raises(ValueError, match="multiple of"):
        ProductVQ(3, 16, 8)


def test_disentangling() -> None:
    one, other = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[0.0, 3.0]]])
    both = (one + other * 2 / 3) / 2
    assert disentangle([one, other]).item() == 0
    assert disentangle([one, -5 * one]).item() == pytest.approx(1)
    assert disentangle([one, both]).item() == pytest.approx(0.5)
    assert disentangle([one, other, both]).item() == pytest.approx((0 + 0.5 + 0.5) / 3)
    with pytest.raises(ValueError, match="needs two or more codebooks"):
        disentangle([one])


def test_simvq_starts_at_the_centres_of_k_means() -> None:
    latents = clusters().flatten(0, 1)
    simple, plain = SimVQ(2, 2), VectorQuantizer(2, 2, normalised=False)
    for quantizer in (simple, plain):
        quantizer.start(latents)
    torch.testing.assert_close(simple.table(), plain.table())
    expected = torch.stack([latents[:60].mean(0), latents[60:].mean(0)])
    torch.testing.assert_close(simple.table()[0].sort(0).values, expected.sort(0).values, rtol=1e-4, atol=1e-4)
