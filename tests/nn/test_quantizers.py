"""Quantizers: what all of them must keep, and the functions that they share."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tokbench.nn.quantizers.bits import BernoulliBits
from tokbench.nn.quantizers.fsq import FSQ
from tokbench.nn.quantizers.gaussian_bins import GaussianBins
from tokbench.nn.quantizers.ibq import IndexBackpropagation
from tokbench.nn.quantizers.lfq import LFQ
from tokbench.nn.quantizers.product import Product, ProductVQ
from tokbench.nn.quantizers.quantizer import (
    Quantizer,
    distances,
    entropy_loss,
    matching_loss,
    mixed_radix,
    nearest,
    rotation,
    straight_through,
    usage,
)
from tokbench.nn.quantizers.residual import MultiScaleVQ, ResidualVQ
from tokbench.nn.quantizers.simvq import SimVQ
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.tokenizer import BottleneckAutoencoder

MADE: dict[str, Callable[[], Quantizer]] = {
    "vq": lambda: VectorQuantizer(32, 8),
    "vq plain": lambda: VectorQuantizer(32, 8, normalised=False, entropy=0.1, restart_after=1),
    "vq ema": lambda: VectorQuantizer(32, 8, update="ema", entropy=0.1, restart_after=1),
    "vq plain ema": lambda: VectorQuantizer(32, 8, normalised=False, update="ema", entropy=0.1),
    "vq rotation": lambda: VectorQuantizer(32, 8, gradient="rotation"),
    "ibq": lambda: IndexBackpropagation(32, 8),
    "simvq": lambda: SimVQ(32, 8),
    "simvq rotation": lambda: SimVQ(32, 8, gradient="rotation"),
    "fsq": lambda: FSQ([8, 5, 4, 3]),
    "lfq": lambda: LFQ(6),
    "lfq groups": lambda: LFQ(4, 3),
    "residual": lambda: ResidualVQ(3, 16, 8, dropout=0.5),
    "residual ema": lambda: ResidualVQ(3, 16, 8, update="ema", restart_after=1, gradient="rotation"),
    "scales": lambda: MultiScaleVQ(32, 8, (1, 2, 4), restart_after=1, entropy=0.1),
    "scales ema": lambda: MultiScaleVQ(32, 8, (1, 3, 4), update="ema", gradient="rotation"),
    "product": lambda: ProductVQ(2, 16, 8, restart_after=1),
    "product residual": lambda: Product([ResidualVQ(2, 16, 8), ResidualVQ(2, 16, 8, update="ema")]),
    "bits": lambda: BernoulliBits(12, 8),
    "bins": lambda: GaussianBins(5, 6),
    "bins uniform": lambda: GaussianBins(4, 6, uniform=True),
}


def made(name: str, seed: int = 0) -> Quantizer:
    torch.manual_seed(seed)
    return MADE[name]()


def drawn(quantizer: Quantizer, seed: int = 1) -> Tensor:
    """Latents of three images of 16 positions."""
    return 1.5 * torch.randn(3, 16, quantizer.dim, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=MADE)
def quantizer(request: pytest.FixtureRequest) -> Quantizer:
    return made(request.param).eval()


def test_vectors_come_from_indices_alone(quantizer: Quantizer) -> None:
    latents = drawn(quantizer)
    quantized = quantizer(latents)
    assert quantized.vectors.shape == latents.shape and quantized.vectors.dtype == torch.float32
    assert quantized.indices.dtype == torch.int64
    assert torch.equal(quantizer.lookup(quantized.indices), quantized.vectors)


def test_indices_are_the_nearest_entries(quantizer: Quantizer) -> None:
    latents = drawn(quantizer)
    indices, anchors, table = quantizer(latents).indices, quantizer.anchors(latents), quantizer.table()
    assert table.shape == (quantizer.groups, quantizer.codebook_size, anchors.shape[-1])
    assert anchors.shape[:-1] == indices.shape
    assert indices.shape[::2] == (3, quantizer.groups)
    assert indices.min() >= 0 and indices.max() < quantizer.codebook_size
    assert len(indices.unique()) > 1
    assert torch.equal(nearest(anchors, table)[..., 0], indices)


def test_another_index_is_another_vector(quantizer: Quantizer) -> None:
    """Every group's index matters to the position it belongs to."""
    quantized = quantizer(drawn(quantizer))
    for group in range(quantizer.groups):
        changed = quantized.indices.clone()
        changed[..., group] = (changed[..., group] + 1) % quantizer.codebook_size
        assert ((quantizer.lookup(changed) - quantized.vectors).abs().amax(-1) > 1e-6).all()


@pytest.mark.parametrize("training", [False, True])
def test_gradient_reaches_every_latent_and_parameter(quantizer: Quantizer, training: bool) -> None:
    quantizer.train(training)
    latents = drawn(quantizer).requires_grad_()
    quantized = quantizer(latents)
    (quantized.vectors * torch.randn_like(quantized.vectors)).sum().backward(retain_graph=True)
    assert latents.grad is not None
    assert torch.isfinite(latents.grad).all() and (latents.grad.abs().sum(-1) > 0).all()
    if quantized.loss.requires_grad:
        quantized.loss.backward()
    for name, parameter in quantizer.named_parameters():
        if not training:  # a level that a batch drops has none
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_codebooks_that_move_in_place_do_not_spoil_the_gradient(quantizer: Quantizer) -> None:
    """Two forward passes in training and one backward, as with accumulated gradients."""
    quantizer.train()
    latents = drawn(quantizer).requires_grad_()
    both = [quantizer(latents), quantizer(latents)]
    sum((one.vectors.sum() + one.loss for one in both), start=torch.zeros(())).backward()
    assert latents.grad is not None and torch.isfinite(latents.grad).all()


def test_images_of_a_batch_do_not_mix_in_evaluation(quantizer: Quantizer) -> None:
    latents = drawn(quantizer)
    together = quantizer(latents)
    for image in range(len(latents)):
        alone = quantizer(latents[image : image + 1])
        assert torch.equal(alone.indices[0], together.indices[image])
        torch.testing.assert_close(alone.vectors[0], together.vectors[image], rtol=0, atol=1e-6)


def test_evaluation_draws_and_changes_nothing(quantizer: Quantizer) -> None:
    latents = drawn(quantizer)
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    noise = torch.get_rng_state()
    first, second = quantizer(latents), quantizer(latents)
    assert torch.equal(first.vectors, second.vectors) and torch.equal(first.loss, second.loss)
    assert torch.equal(noise, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in quantizer.state_dict().items())


@pytest.mark.parametrize("name", MADE)
def test_training_depends_on_the_seed_alone(name: str) -> None:
    found = []
    for _ in range(2):
        quantizer = made(name).train()
        found.append([quantizer(drawn(quantizer, seed)) for seed in (1, 2, 3)])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one.vectors, other.vectors) and torch.equal(one.indices, other.indices)


@pytest.mark.parametrize("name", MADE)
def test_a_state_holds_all_that_was_learned(name: str) -> None:
    one, other = made(name, seed=0).train(), made(name, seed=1)
    latents = drawn(one)
    one(latents)
    one.eval()
    other.eval()
    if one.state_dict():
        assert not torch.equal(one(latents).vectors, other(latents).vectors)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(latents).vectors, other(latents).vectors)
    assert torch.equal(one(latents).indices, other(latents).indices)


def test_autocast_does_not_change_an_index(quantizer: Quantizer) -> None:
    latents = drawn(quantizer)
    plain = quantizer(latents)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast, again, half = quantizer(latents), quantizer.lookup(plain.indices), quantizer(latents.bfloat16())
        assert torch.equal(nearest(quantizer.anchors(latents), quantizer.table())[..., 0], plain.indices)
    assert torch.equal(cast.indices, plain.indices) and torch.equal(cast.vectors, plain.vectors)
    assert torch.equal(again, plain.vectors)
    torch.testing.assert_close(cast.loss, plain.loss)
    rounded = quantizer(latents.bfloat16().float())  # half the precision of the latents is not half of everything
    assert half.vectors.dtype == torch.float32 and torch.equal(half.indices, rounded.indices)


def test_loss_and_statistics_are_scalars(quantizer: Quantizer) -> None:
    quantized = quantizer(drawn(quantizer).requires_grad_())
    assert quantized.loss.shape == () and torch.isfinite(quantized.loss)
    assert set(quantized.statistics) == {"perplexity", "used"}
    assert all(value.shape == () and not value.requires_grad for value in quantized.statistics.values())
    assert 1 < quantized.statistics["perplexity"] <= quantizer.codebook_size * (1 + 1e-6)
    assert 0 < quantized.statistics["used"] <= 1


@pytest.mark.parametrize("index", [-1, 4])
def test_an_index_outside_the_codebook_is_an_error(index: int) -> None:
    for quantizer in (VectorQuantizer(4, 3), SimVQ(4, 3), FSQ([4]), LFQ(2), ProductVQ(1, 4, 3), GaussianBins(2, 1)):
        with pytest.raises(IndexError):
            quantizer.lookup(torch.full((1, 1, 1), index))


def test_before_its_share_of_a_training_a_decoder_gets_what_is_not_quantized(quantizer: Quantizer) -> None:
    class Plain(BottleneckAutoencoder):
        def encoded(self, images: Tensor) -> Tensor:
            return images

        def decoded(self, vectors: Tensor, seeds: object = None) -> Tensor:
            return vectors

    quantizer.train().used_from = 0.3
    model, latents = Plain(), drawn(quantizer).requires_grad_()
    same, evaluated = (copy.deepcopy(quantizer) for _ in range(2))  # training moves some codebooks
    model.bottleneck = quantizer
    torch.manual_seed(0)
    expected = same(latents)
    torch.manual_seed(0)
    late, loss = model.squeeze(latents, 0.3)
    assert torch.equal(late, expected.vectors) and torch.equal(loss, expected.loss)
    early, loss = model.squeeze(latents, 0.29)
    assert loss == 0
    assert torch.equal(early, quantizer.unquantized(latents)) and not torch.equal(early, expected.vectors)
    (gradient,) = torch.autograd.grad(early.square().mul(torch.arange(1.0, quantizer.dim + 1)).sum(), latents)
    assert (gradient.flatten(0, 1).abs().sum(1) > 0).all()
    model.bottleneck = evaluated
    model.eval()
    assert torch.equal(model.squeeze(latents, 0.0)[0], evaluated(latents).vectors)


def test_straight_through_has_one_side_s_value_and_the_other_s_gradient() -> None:
    latents, vectors = torch.randn(5, 4, requires_grad=True), 1e4 * torch.randn(5, 4, requires_grad=True)
    upstream = torch.randn(5, 4)
    passed = straight_through(latents, vectors)
    assert torch.equal(passed, vectors)
    assert torch.equal(torch.autograd.grad((passed * upstream).sum(), latents)[0], upstream)


def test_index_backpropagation_reaches_entries_that_are_not_chosen() -> None:
    torch.manual_seed(0)
    latents = torch.randn(1, 3, 4, requires_grad=True)
    gradients = []
    for quantizer in (IndexBackpropagation(8, 4, temperature=0.5), VectorQuantizer(8, 4, normalised=False)):
        quantizer(latents).vectors.square().sum().backward()
        codebook = quantizer.codebook
        gradients.append(0 if codebook.grad is None else int((codebook.grad != 0).any(1).sum()))
    assert gradients == [8, 0]
    # The gradient of the latents is that of the softmax over all entries.
    quantizer = IndexBackpropagation(8, 4, temperature=0.5)
    table = quantizer.table()[0].detach()
    direction = torch.randn(1, 3, 4)
    found = torch.autograd.grad((quantizer(latents).vectors * direction).sum(), latents)[0]
    soft = (-(latents[:, :, None] - table).square().sum(-1) / 0.5).softmax(-1) @ table
    torch.testing.assert_close(found, torch.autograd.grad((soft * direction).sum(), latents)[0], rtol=1e-4, atol=1e-5)


def test_rotation_keeps_the_angle_of_the_gradient() -> None:
    torch.manual_seed(0)
    latents, vectors = torch.randn(200, 6, requires_grad=True), 3 * torch.randn(200, 6)
    upstream = torch.randn(200, 6)
    passed = rotation(latents, vectors)
    assert torch.equal(passed, vectors)
    (grad,) = torch.autograd.grad((passed * upstream).sum(), latents)
    cosine = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(cosine(grad, latents), cosine(upstream, vectors), rtol=0, atol=1e-4)
    scale = vectors.norm(dim=-1) / latents.norm(dim=-1)
    torch.testing.assert_close(grad.norm(dim=-1), upstream.norm(dim=-1) * scale, rtol=1e-3, atol=1e-4)
    (grad,) = torch.autograd.grad((rotation(latents, latents * 1) * upstream).sum(), latents)  # no turn, no scale
    torch.testing.assert_close(grad, upstream, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("vectors", [[0.0, 0.0], [-3.0, 0.0]], ids=["to nothing", "to the opposite"])
@pytest.mark.parametrize("latents", [[0.0, 0.0], [1.0, 0.0]], ids=["from nothing", "from something"])
def test_rotation_is_finite_where_there_is_none(latents: list[float], vectors: list[float]) -> None:
    start = torch.tensor([latents], requires_grad=True)
    passed = rotation(start, torch.tensor([vectors]))
    assert passed.tolist() == [vectors]
    assert torch.isfinite(torch.autograd.grad(passed.sum(), start)[0]).all()


@pytest.mark.parametrize("values", [1, 5])
def test_nearest_entries_come_in_order(values: int) -> None:
    torch.manual_seed(0)
    anchors, table = torch.randn(2, 3, 4, values), torch.randn(4, 30, values)
    found = nearest(anchors, table, count=7)
    assert found.shape == (2, 3, 4, 7) and found.dtype == torch.int64
    gaps = (anchors[:, :, :, None].double() - table.double()).square().sum(-1)
    assert torch.equal(found, gaps.argsort(-1)[..., :7])
    assert torch.equal(nearest(anchors, table), found[..., :1])
    torch.testing.assert_close(distances(anchors, table).double(), gaps, rtol=1e-4, atol=1e-5)


def test_of_equally_near_entries_the_first_is_chosen() -> None:
    table = torch.tensor([[[3.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]]])
    assert nearest(torch.zeros(1, 1, 1, 2), table).item() == 1


def test_fine_scales_of_single_values_are_distinguished() -> None:
    """The expanded square would give 5.0 and 5.0001 the same distance to most anchors."""
    table = (5 + torch.arange(100) * 1e-4)[None, :, None]
    assert torch.equal(nearest(table[0][None, :, None] + 1e-6, table).flatten(), torch.arange(100))


def test_entropy_loss_at_its_extremes() -> None:
    far = 1000 * (1 - torch.eye(8))  # every position sure of an entry of its own
    assert entropy_loss(far[None, :, None], 0.01).item() == pytest.approx(-math.log(8), abs=1e-5)
    assert entropy_loss(far[None, :1, None].expand(1, 8, 1, 8), 0.01).item() == pytest.approx(0, abs=1e-5)
    assert entropy_loss(torch.zeros(2, 4, 3, 8), 0.01).item() == pytest.approx(0, abs=1e-5)  # all undecided
    half = torch.stack(
        [far[:4], torch.zeros(4, 8)], dim=1
    )  # the first group uses half its entries, the other is unsure
    assert entropy_loss(half[None], 0.01).item() == pytest.approx(-math.log(4) / 2, abs=1e-5)
    gaps = far[None, :, None].clone().requires_grad_()
    entropy_loss(gaps, 0.01).backward()
    assert gaps.grad is not None and torch.isfinite(gaps.grad).all()


def test_matching_loss_draws_each_side_by_its_weight() -> None:
    latents, vectors = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    gap, loss = (latents - vectors).detach(), matching_loss(latents, vectors, 0.25)
    assert loss.item() == pytest.approx(1.25 * gap.square().mean().item())
    towards = torch.autograd.grad(loss, [latents, vectors])
    torch.testing.assert_close(towards[0], 0.25 * 2 * gap / 12)
    torch.testing.assert_close(towards[1], -2 * gap / 12)
    assert matching_loss(latents, vectors, 0.25, learned=False).item() == pytest.approx(loss.item() / 5)


def test_usage_counts_each_group_by_itself() -> None:
    indices = torch.tensor([[[0, 3], [1, 3]], [[0, 3], [1, 3]]])
    found = usage(indices, 4)
    assert found["perplexity"].item() == pytest.approx((2 + 1) / 2)
    assert found["used"].item() == pytest.approx((0.5 + 0.25) / 2)


def test_mixed_radix_counts() -> None:
    places, digits = mixed_radix([3, 2, 4])
    assert places.tolist() == [1, 3, 6] and digits.shape == (24, 3)
    assert torch.equal((digits * places).sum(-1), torch.arange(24))
    assert digits.amax(0).tolist() == [2, 1, 3]
