"""Scalar quantizers and the Gaussian bottleneck by their algebra: what they must give where the answer is known."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from scipy import stats

from tokbench.nn.quantizers.bits import BernoulliBits
from tokbench.nn.quantizers.fsq import FSQ
from tokbench.nn.quantizers.gaussian_bins import GaussianBins, normal_edges, normal_means
from tokbench.nn.quantizers.kl import KL
from tokbench.nn.quantizers.lfq import LFQ


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# FSQ


@pytest.mark.parametrize("levels", [[8, 5, 3], [4, 4], [5]])
def test_fsq_gives_back_every_index(levels: list[int]) -> None:
    quantizer = FSQ(levels)
    indices = torch.arange(quantizer.codebook_size)[None, :, None]
    vectors = quantizer.lookup(indices)
    assert len(vectors[0].unique(dim=0)) == math.prod(levels)
    assert vectors.min() == -1 and vectors.max() <= 1
    value = vectors.double() * quantizer.steps
    latents = torch.atanh((value + quantizer.offset) / quantizer.reach) - quantizer.shift
    found = quantizer(latents)
    assert torch.equal(found.indices, indices) and torch.equal(found.vectors, vectors)
    assert found.loss == 0 and found.statistics["used"] == 1
    assert found.statistics["perplexity"].item() == pytest.approx(math.prod(levels), rel=1e-5)


def test_fsq_of_nothing_and_of_too_much() -> None:
    quantizer = FSQ([8, 5, 4, 3])
    assert quantizer(torch.zeros(1, 1, 4)).vectors.tolist() == [[[0, 0, 0, 0]]]
    assert quantizer(torch.full((1, 1, 4), 99.0)).indices.item() == 8 * 5 * 4 * 3 - 1
    assert quantizer(torch.full((1, 1, 4), -99.0)).indices.item() == 0
    for levels in ([], [8, 2]):
        with pytest.raises(ValueError, match="3 or more"):
            FSQ(levels)


# LFQ


def test_lfq_of_all_codes_and_of_one() -> None:
    quantizer = LFQ(4, entropy=1.0, commitment=0.25)
    codes = quantizer.table()
    assert quantizer(codes).loss.item() == pytest.approx(-math.log(16), abs=1e-5)
    assert torch.equal(quantizer(codes).indices.flatten(), torch.arange(16))
    assert quantizer(codes[:, :1].expand(1, 16, 4)).loss.item() == pytest.approx(0, abs=1e-5)
    nothing = quantizer(torch.zeros(1, 16, 4))
    assert nothing.loss.item() == pytest.approx(0.25, abs=1e-5)  # as undecided as can be, and a step from every sign
    assert nothing.indices.unique().tolist() == [0]


def test_lfq_s_groups_are_lfqs() -> None:
    latents = 0.1 * torch.randn(2, 20, 12)
    whole, part = LFQ(4, 3)(latents), LFQ(4)
    parts = [part(piece) for piece in latents.chunk(3, dim=-1)]
    assert torch.equal(whole.indices, torch.cat([one.indices for one in parts], dim=-1))
    assert torch.equal(whole.vectors, torch.cat([one.vectors for one in parts], dim=-1))
    assert whole.loss.item() == pytest.approx(sum(one.loss.item() for one in parts) / 3)


def test_lfq_s_entropy_is_that_of_wetok() -> None:
    quantizer, latents = LFQ(3, entropy=1.0, commitment=0.0), 0.02 * torch.randn(1, 40, 3)
    chances = (2 * latents[0] @ quantizer.codes.T / 0.01).softmax(-1).double()
    mean = chances.mean(0)
    wanted = -(chances * chances.log()).sum(-1).mean() + (mean * mean.log()).sum()
    assert quantizer(latents).loss.item() == pytest.approx(wanted.item(), abs=1e-5)


# BernoulliBits


def test_bits_are_drawn_by_their_chances() -> None:
    quantizer = BernoulliBits(6, 4, temperature=0.5)
    latents = torch.randn(1, 1, 4).expand(1, 4000, 4)
    chances = (quantizer.logits(latents)[0, 0] / 0.5).sigmoid()
    found = quantizer(latents).indices[0].float().mean(0)
    assert chances.min() < 0.45 and chances.max() > 0.55
    torch.testing.assert_close(found, chances.detach(), rtol=0, atol=0.04)
    decided = quantizer.eval()(latents)
    assert torch.equal(decided.indices[0, 0], (chances > 0.5).long())
    torch.testing.assert_close(decided.vectors[0, 0], quantizer.embedding[chances > 0.5].sum(0))


def test_bits_pass_the_gradient_of_their_chances() -> None:
    """Without the temperature that they are drawn with."""
    quantizer, latents = BernoulliBits(6, 4, temperature=0.1), torch.randn(1, 5, 4, requires_grad=True)
    upstream = torch.randn(1, 5, 4)
    (found,) = torch.autograd.grad((quantizer(latents).vectors * upstream).sum(), latents)
    chances = quantizer.logits(latents).sigmoid()
    wanted = (upstream @ quantizer.embedding.T * chances * (1 - chances)) @ quantizer.head.weight
    torch.testing.assert_close(found, wanted.detach())


def test_undecided_bits_cost_most() -> None:
    quantizer = BernoulliBits(6, 4, penalty=2.0)
    with torch.no_grad():
        quantizer.head.weight.zero_()
        for bias, cost in ((0.0, 0.5), (40.0, 0.0), (math.log(3), 2 * 0.75 * 0.25)):
            quantizer.head.bias.fill_(bias)
            assert quantizer(torch.randn(1, 5, 4)).loss.item() == pytest.approx(cost, abs=1e-6)


# GaussianBins


@pytest.mark.parametrize("bits", [1, 3, 6])
def test_bins_are_equally_filled_and_stand_for_their_means(bits: int) -> None:
    edges = normal_edges(2**bits, span=3.0)
    mass = stats.norm.cdf(edges.numpy())[1:-1]
    assert mass == pytest.approx([count / 2**bits for count in range(1, 2**bits)])
    assert edges[[0, -1]].tolist() == [-3, 3]
    wanted = stats.truncnorm.mean(edges[:-1].numpy(), edges[1:].numpy())
    assert normal_means(edges).numpy() == pytest.approx(wanted, abs=1e-9)
    assert normal_means(torch.tensor([3.0, 3.0], dtype=torch.float64)).tolist() == [3]


@pytest.mark.parametrize("bits", [1, 2, 6, 12])
@pytest.mark.parametrize("uniform", [False, True])
def test_bins_choose_the_nearest_value(bits: int, uniform: bool) -> None:
    quantizer, latents = GaussianBins(bits, 2, uniform=uniform), 4 * torch.randn(1, 300, 2)
    quantized = quantizer(latents)
    mapped = latents.double().clamp(-5, 5) * 0.6
    gaps = (mapped[..., None] - quantizer.values.double()).abs()
    chosen = gaps.gather(-1, quantized.indices[..., None])[..., 0]
    torch.testing.assert_close(chosen, gaps.amin(-1), rtol=0, atol=1e-6)
    torch.testing.assert_close(quantized.vectors.double(), quantizer.values.double()[quantized.indices] / 0.6)
    assert quantizer(torch.tensor([[[-99.0, 99.0]]])).indices.flatten().tolist() == [
        0, int(quantizer.values.argmax())
    ]  # fmt: skip
    assert quantizer.anchors(torch.tensor([[[-99.0, 99.0]]])).flatten().tolist() == pytest.approx([-3, 3])


def test_bins_beyond_the_span_are_not_used() -> None:
    quantizer = GaussianBins(12, 1)
    empty = int((quantizer.values == -3).sum())
    assert empty == 4096 * stats.norm.cdf(-3) // 1  # bins that lie beyond it altogether
    edge = torch.tensor([[[-5.0], [-4.999]]])  # on the shared value, and just inside it
    assert quantizer(edge).indices.flatten().tolist() == [0, 0]
    everywhere = quantizer(torch.linspace(-5, 5, 100_000)[None, :, None])
    assert len(everywhere.indices.unique()) == 4096 - 2 * (empty - 1)


def test_many_bins_are_hardly_any() -> None:
    latents = 2 * torch.randn(1, 2000, 3)
    clamped = latents.clamp(-5, 5)
    errors = [(GaussianBins(bits, 3)(latents).vectors - clamped).abs().mean().item() for bits in (2, 4, 6, 8, 12)]
    assert all(after < 0.5 * before for before, after in pairwise(errors)), errors
    assert errors[-1] < 2e-3
    even = GaussianBins(12, 3, uniform=True)(latents).vectors - clamped
    assert even.abs().max().item() == pytest.approx(5 / 4096, rel=0.02)


def test_a_normal_fills_its_bins() -> None:
    """Latents whose mapped values are N(0, 1) use all levels about equally; with unit latents they do not."""
    latents = torch.randn(1, 20000, 1)
    quantizer = GaussianBins(4, 1)
    assert quantizer(latents / 0.6).statistics["perplexity"] > 15
    assert quantizer(latents).statistics["perplexity"] < 15
    assert quantizer(latents / 0.6).loss == 0
    assert GaussianBins(4, 1, uniform=True)(latents / 0.6).statistics["perplexity"] < 14
    with pytest.raises(ValueError, match="at least 1"):
        GaussianBins(0, 1)


# KL


def test_kl_is_nothing_for_a_standard_normal_and_textbook_else() -> None:
    bottleneck = KL(3, weight=0.5)
    assert bottleneck(torch.zeros(2, 4, 6))[1].item() == 0
    mean, log_variance = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    normal = torch.distributions.Normal
    wanted = torch.distributions.kl_divergence(normal(mean, (log_variance / 2).exp()), normal(0.0, 1.0)).mean()
    assert bottleneck(torch.cat([mean, log_variance], dim=-1))[1].item() == pytest.approx(0.5 * wanted.item())
    with pytest.raises(ValueError, match="values, not 5"):
        bottleneck(torch.zeros(2, 4, 5))


def test_kl_samples_in_training_only() -> None:
    bottleneck = KL(1)
    moments = torch.tensor([2.0, math.log(9)]).expand(1, 4000, 2)
    sampled = bottleneck(moments)[0]
    assert sampled.mean().item() == pytest.approx(2, abs=0.2) and sampled.std().item() == pytest.approx(3, abs=0.15)
    assert torch.equal(bottleneck.eval()(moments)[0], moments[..., :1])
    for extreme in (1e4, -1e4):
        values, loss = bottleneck.train()(torch.tensor([[[0.0, extreme]]]))
        assert torch.isfinite(values).all() and torch.isfinite(loss)
