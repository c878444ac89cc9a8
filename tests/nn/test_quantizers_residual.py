"""Residual and multi-scale quantizers by their algebra: what they must give where the answer is known."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.nn.quantizers.residual import MultiScaleVQ, ResidualVQ, SequenceVQ
from tokbench.nn.quantizers.vq import VectorQuantizer


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def trained_residual() -> tuple[ResidualVQ, Tensor]:
    quantizer = ResidualVQ(4, 32, 4, update="ema", decay=0.8, restart_after=2)
    for _ in range(20):
        quantizer(torch.randn(4, 64, 4))
    return quantizer.eval(), torch.randn(4, 64, 4)


def test_each_level_lessens_the_error() -> None:
    quantizer, latents = trained_residual()
    quantized = quantizer(latents)
    errors = [latents.square().mean().item()]
    for count in range(1, 5):
        indices = quantized.indices.clone()
        indices[..., count:] = -1
        errors.append(F.mse_loss(quantizer.lookup(indices), latents).item())
    assert all(after < 0.7 * before for before, after in pairwise(errors)), errors
    assert torch.equal(quantizer.anchors(latents)[:, :, 0], latents)


def test_dropped_levels_are_a_tail_that_does_not_learn() -> None:
    quantizer, latents = ResidualVQ(3, 8, 4, dropout=1.0, update="ema"), torch.randn(2, 10, 4)
    kept = []
    for _ in range(60):
        before = [level.codebook.clone() for level in quantizer.levels]
        quantized = quantizer(latents)
        used = (quantized.indices >= 0).all(1).all(0).tolist()
        assert used == sorted(used, reverse=True)
        assert torch.equal(quantized.indices >= 0, torch.tensor(used).expand(2, 10, 3))
        moved = [not torch.equal(level.codebook, old) for level, old in zip(quantizer.levels, before, strict=True)]
        assert moved == used
        kept.append(sum(used))
    assert {*kept} == {1, 2, 3}
    assert min(kept.count(count) for count in (1, 2, 3)) > 8
    assert (quantizer.eval()(latents).indices >= 0).all()


def test_dropped_levels_decode_to_what_training_saw() -> None:
    quantizer, latents = ResidualVQ(3, 8, 4, dropout=1.0), torch.randn(2, 10, 4)
    for _ in range(10):
        quantized = quantizer(latents)
        assert torch.equal(quantizer.lookup(quantized.indices), quantized.vectors)


def test_a_sum_of_levels_passes_one_gradient() -> None:
    latents, upstream = torch.randn(2, 10, 4, requires_grad=True), torch.randn(2, 10, 4)
    vectors = ResidualVQ(3, 8, 4)(latents).vectors
    assert torch.equal(torch.autograd.grad((vectors * upstream).sum(), latents)[0], upstream)


def test_every_level_draws_the_latents_and_its_own_entries() -> None:
    quantizer, latents = ResidualVQ(3, 8, 4), torch.randn(2, 10, 4, requires_grad=True)
    quantized = quantizer(latents)
    rests = quantizer.anchors(latents).detach().unbind(2)
    vectors = [level.lookup(one) for level, one in zip(quantizer.levels, quantized.indices.split(1, -1), strict=True)]
    gaps = [rest - entries for rest, entries in zip(rests, vectors, strict=True)]
    assert quantized.loss.item() == pytest.approx(1.25 * sum(gap.square().mean().item() for gap in gaps))
    towards = torch.autograd.grad(quantized.loss, [latents, *quantizer.parameters()])
    torch.testing.assert_close(towards[0], 0.25 * 2 * torch.stack(gaps).sum(0).detach() / 80)
    for n, grad in enumerate(towards[1:]):
        wanted = torch.zeros(8, 4).index_add_(0, quantized.indices[..., n].flatten(), -2 * gaps[n].flatten(0, 1) / 80)
        torch.testing.assert_close(grad, wanted.detach())


@pytest.mark.parametrize("made", [lambda: ResidualVQ(3, 8, 4), lambda: MultiScaleVQ(8, 4, (1, 2, 3))])
def test_what_is_left_for_a_later_codebook_does_not_move_an_earlier_one(made: Any) -> None:
    quantizer = made()
    anchors = quantizer.anchors(torch.randn(2, 9, 4, requires_grad=True))
    assert torch.autograd.grad(anchors.sum(), list(quantizer.parameters()), allow_unused=True)[0] is None


# MultiScaleVQ


@pytest.mark.parametrize("update", ["gradient", "ema"])
def test_one_scale_is_plain_vq(update: Any) -> None:
    plain = VectorQuantizer(16, 4, normalised=False, update=update, entropy=0.1)
    scales = MultiScaleVQ(16, 4, (5,), update=update, entropy=0.1)
    scales.vq.load_state_dict(plain.state_dict())
    for _ in range(3):
        latents = torch.randn(2, 25, 4)
        one, other = plain(latents), scales(latents)
        assert torch.equal(one.indices, other.indices) and torch.equal(one.vectors, other.vectors)
        torch.testing.assert_close(one.loss, other.loss)
    assert torch.equal(plain.codebook, scales.vq.codebook)


def test_a_plain_colour_is_all_in_the_first_scale() -> None:
    quantizer = MultiScaleVQ(3, 2, (1, 2, 4))
    with torch.no_grad():
        quantizer.vq.codebook.copy_(torch.tensor([[0.0, 0.0], [1.0, -2.0], [5.0, 5.0]]))
    quantized = quantizer(torch.tensor([1.0, -2.0]).expand(1, 16, 2))
    assert quantized.indices.flatten().tolist() == [1] + [0] * 20
    torch.testing.assert_close(quantized.vectors, torch.tensor([1.0, -2.0]).expand(1, 16, 2))
    assert quantized.loss.item() == pytest.approx(0, abs=1e-10)


def test_scales_are_rows_from_coarse_to_fine() -> None:
    """One position of the 2x2 scale colours its quarter of the map."""
    quantizer = MultiScaleVQ(2, 1, (1, 2, 8))
    with torch.no_grad():
        quantizer.vq.codebook.copy_(torch.tensor([[0.0], [1.0]]))
    indices = torch.zeros(1, quantizer.positions, 1, dtype=torch.int64)
    indices[0, 1 + 1] = 1  # after the one of 1x1: top right
    vectors = quantizer.lookup(indices)
    grid = vectors.reshape(8, 8)
    assert grid[:3, 5:].min() > 0.8 and grid[5:].abs().max() < 0.2 and grid[:, :3].abs().max() < 0.2


def test_scales_shrink_by_areas_and_grow_bicubically() -> None:
    quantizer, latents = MultiScaleVQ(8, 3, (1, 2, 6)), torch.randn(2, 36, 3)
    sums = [total for _, _, total in quantizer.scales(latents, quantizer.table())]
    assert torch.allclose(quantizer.anchors(latents)[:, 0, 0], latents.mean(1), atol=1e-6)
    left = (latents - sums[0]).unflatten(1, (2, 3, 2, 3)).mean((2, 4)).flatten(1, 2)
    assert torch.allclose(quantizer.anchors(latents)[:, 1:5, 0], left, atol=1e-6)
    quantized = quantizer(latents)
    assert quantized.loss.item() == pytest.approx(1.25 * sum(F.mse_loss(one, latents).item() for one in sums) / 3)
    small = quantizer.vq.lookup(quantized.indices[:, 1:5]).unflatten(1, (2, 2)).permute(0, 3, 1, 2)
    grown = F.interpolate(small, size=(6, 6), mode="bicubic").permute(0, 2, 3, 1).flatten(1, 2)
    assert torch.allclose(sums[1] - sums[0], grown, atol=1e-6)


def test_scales_add_up_to_less_error() -> None:
    quantizer = MultiScaleVQ(64, 2, (1, 2, 4), update="ema", decay=0.8, restart_after=2)
    smooth = F.interpolate(torch.randn(32, 2, 2, 2), size=(4, 4), mode="bicubic").flatten(2).transpose(1, 2)
    for _ in range(20):
        quantizer(smooth)
    sums = [total for _, _, total in quantizer.scales(smooth, quantizer.table())]
    errors = [F.mse_loss(total, smooth).item() for total in sums]
    assert errors[0] > 2 * errors[1] > 2 * errors[2]


def test_scales_must_fit() -> None:
    with pytest.raises(ValueError, match="increase"):
        MultiScaleVQ(8, 2, (4, 2))
    quantizer = MultiScaleVQ(8, 2, (1, 2))
    with pytest.raises(ValueError, match="5 positions"):
        quantizer(torch.zeros(1, 5, 2))
    with pytest.raises(ValueError, match="16 positions"):
        quantizer(torch.zeros(1, 16, 2))
    with pytest.raises(ValueError, match="need 5 indices"):
        quantizer.lookup(torch.zeros(1, 4, 1, dtype=torch.int64))


# SequenceVQ


def test_scales_of_a_sequence_shrink_by_averages_and_grow_linearly() -> None:
    quantizer, latents = SequenceVQ(8, 3, (1, 2, 6)), torch.randn(2, 6, 3)
    sums = [total for _, _, total in quantizer.scales(latents, quantizer.table())]
    anchors, indices = quantizer.anchors(latents)[:, :, 0], quantizer(latents).indices
    assert torch.allclose(anchors[:, 0], latents.mean(1), atol=1e-6)
    assert torch.allclose(anchors[:, 1:3], (latents - sums[0]).unflatten(1, (2, 3)).mean(2), atol=1e-6)
    first, second = quantizer.vq.lookup(indices[:, 1:3]).unbind(1)
    halfway = torch.tensor([0, 0, 1 / 3, 2 / 3, 1, 1])[:, None]  # the centres of the two thirds are at 1 and 4
    assert torch.allclose(sums[1] - sums[0], torch.lerp(first[:, None], second[:, None], halfway), atol=1e-6)


def test_the_first_codes_of_a_sequence_are_the_coarse_scales() -> None:
    quantizer, latents = SequenceVQ(16, 4, (1, 2, 4), update="ema", used_from=0.3), torch.randn(2, 4, 4)
    quantizer.eval()
    quantized = quantizer(latents)
    assert quantizer.used_from == 0.3 and quantized.indices.shape == (2, 7, 1)
    sums = [total for _, _, total in quantizer.scales(latents, quantizer.table())]
    for codes, total in zip((1, 3, 7), sums, strict=True):
        assert torch.equal(quantizer.lookup(quantized.indices[:, :codes]), total)
    assert torch.equal(quantizer.lookup(quantized.indices[:, :0]), torch.zeros(2, 4, 4))
    with pytest.raises(ValueError, match="have 7 indices, not 8"):
        quantizer.lookup(torch.zeros(1, 8, 1, dtype=torch.int64))


# First codebooks


@pytest.mark.parametrize("made", [lambda: ResidualVQ(2, 16, 4), lambda: MultiScaleVQ(32, 4, (1, 2, 4))])
def test_the_first_codebook_fits_the_latents(made: Any) -> None:
    """From k-means the error is far below the variance, and below that of a random codebook."""
    quantizer, latents = made().eval(), torch.randn(60, 16, 4) * torch.tensor([4.0, 2.0, 1.0, 0.5])
    before = F.mse_loss(quantizer(latents).vectors, latents)
    quantizer.start(latents.flatten(0, 1))
    after = F.mse_loss(quantizer(latents).vectors, latents)
    assert float(after) < 0.5 * float(before) and float(after) < 0.3 * float(latents.var())


def test_levels_start_from_the_residuals_that_reach_them() -> None:
    quantizer, latents = ResidualVQ(2, 4, 1).eval(), torch.tensor([[-11.0], [-9.0], [9.0], [11.0]]).repeat(8, 1)
    with torch.no_grad():
        quantizer.levels[0].codebook.copy_(torch.tensor([[-10.0], [10.0], [99.0], [98.0]]))
    residual = latents - quantizer.levels[0].lookup(quantizer.levels[0](latents[None]).indices)[0]
    assert residual.unique().tolist() == [-1.0, 1.0]
    quantizer.start(latents)
    assert torch.equal(quantizer(latents[None]).vectors[0], latents)  # four centres of four values: no residual is left
