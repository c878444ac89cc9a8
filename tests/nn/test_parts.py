"""Parts of the adapters that are trained here, by algebra."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.nn import flow, losses, masks, nested_dropout
from tokbench.nn.conv import ConvDecoder, ConvEncoder, channels_first, channels_last
from tokbench.nn.vit import GridDecoder, GridEncoder, MaskDecoder, QueryEncoder, Shape

SMALL = Shape(size=32, patch=8, width=32, depth=2, heads=2)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_causal_queries_see_patches_and_earlier_queries() -> None:
    mask = masks.causal_queries(2, 3)
    assert mask.int().tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]


def test_without_an_order_queries_see_each_other() -> None:
    ordered, free = masks.causal_queries(3, 4), masks.patches_then_queries(3, 4)
    assert free[3:].all()
    assert torch.equal(free[:3], ordered[:3])


def test_scales_see_their_own_and_coarser_ones() -> None:
    mask = masks.scale_causal([1, 2])
    assert mask.shape == (5, 5)
    assert mask[0].int().tolist() == [1, 0, 0, 0, 0]
    assert mask[1:].all()


def test_a_later_query_changes_no_earlier_latent() -> None:
    encoder = QueryEncoder(SMALL, 4, 3, masks.causal_queries(SMALL.patches, 4)).eval()
    images = torch.rand(2, 3, 32, 32)
    before = encoder(images)
    with torch.no_grad():
        encoder.queries[3] += torch.randn(SMALL.width)
    after = encoder(images)
    assert torch.allclose(before[:, :3], after[:, :3], atol=1e-6)
    assert not torch.allclose(before[:, 3], after[:, 3], atol=1e-3)


def test_fewer_queries_are_the_first_of_more_under_a_causal_mask() -> None:
    encoder = QueryEncoder(SMALL, 4, 3, masks.causal_queries(SMALL.patches, 4)).eval()
    images = torch.rand(2, 3, 32, 32)
    assert torch.allclose(encoder.features(images, count=2), encoder.features(images)[:, :2], atol=1e-5)
    with pytest.raises(ValueError, match="a context cannot be used with it"):
        encoder(images, torch.zeros(2, 1, SMALL.width))


def test_a_context_reaches_the_queries() -> None:
    encoder = QueryEncoder(SMALL, 4, 3).eval()
    images, context = torch.rand(1, 3, 32, 32), torch.randn(1, 1, SMALL.width)
    assert not torch.allclose(encoder(images, context), encoder(images, -context), atol=1e-4)


def test_a_context_reaches_the_patches() -> None:
    decoder = MaskDecoder(SMALL, 4, 3).eval()
    latents, context = torch.randn(1, 4, 3), torch.randn(1, 2, SMALL.width)
    assert decoder(latents, context=context).shape == decoder(latents).shape
    assert not torch.allclose(decoder(latents, context=context), decoder(latents, context=-context), atol=1e-4)
    with pytest.raises(ValueError, match="a context cannot be used with it"):
        decoder(latents, torch.ones(1, 4, dtype=torch.bool), context)


def test_hidden_latents_do_not_reach_the_patches() -> None:
    decoder = MaskDecoder(SMALL, 4, 3).eval()
    latents = torch.randn(2, 4, 3)
    keep = torch.tensor([[True, True, False, False], [True, True, True, True]])
    expected = decoder(latents, keep)
    other = latents.clone()
    other[0, 2:] += 5
    assert torch.allclose(decoder(other, keep), expected, atol=1e-5)
    assert torch.allclose(decoder(latents[:1, :2]), expected[:1], atol=1e-5)  # hiding is the same as leaving out
    other[1, 3] += 5
    assert not torch.allclose(decoder(other, keep)[1], expected[1], atol=1e-3)


@pytest.mark.parametrize("height, width", [(64, 64), (40, 72)])
def test_convolutions_take_any_multiple_of_8(height: int, width: int) -> None:
    latents = ConvEncoder(5)(torch.rand(2, 3, height, width))
    assert latents.shape == (2, 5, height // 8, width // 8)
    assert torch.equal(channels_first(channels_last(latents)), latents)
    assert ConvDecoder(5)(latents).shape == (2, 3, height, width)


def test_patches_go_back_to_their_places() -> None:
    """Turning one patch dark changes the decoded pixels of no other patch where nothing attends (depth 0)."""
    shape = Shape(size=32, patch=8, width=32, depth=0, heads=2)
    encoder, decoder = GridEncoder(shape, 8), GridDecoder(shape, 8)
    images = torch.rand(1, 3, 32, 32)
    changed = images.clone()
    changed[:, :, 8:16, 16:24] = 0  # row 1, column 2
    gap = (decoder(encoder(changed)) - decoder(encoder(images))).abs().sum((0, 1)) > 0
    assert gap[8:16, 16:24].all()
    gap[7:17, 15:25] = False  # the seam is smoothed by one pixel
    assert not gap.any()


def test_tail_drop_is_uniform() -> None:
    counts = torch.bincount(torch.tensor([nested_dropout.tail_drop(4) for _ in range(4000)]), minlength=5)
    assert counts[0] == 0
    assert ((counts[1:] - 1000).abs() < 130).all()


def test_nested_keep_has_the_stated_shares() -> None:
    kept = nested_dropout.nested_keep(8000, 16, "uniform_pow2")
    shares = {value: float((kept == value).float().mean()) for value in (1, 2, 4, 8, 16)}
    expected = {1: 1 / 16, 2: 1 / 16, 4: 2 / 16, 8: 4 / 16, 16: 8 / 16}
    assert sum(shares.values()) == pytest.approx(1)
    for value, share in expected.items():
        assert shares[value] == pytest.approx(share, abs=0.02)
    pow2 = nested_dropout.nested_keep(5000, 16, "pow2")
    assert torch.bincount(pow2)[[1, 2, 4, 8, 16]].sub(1000).abs().max() < 130
    uniform = nested_dropout.nested_keep(1600, 16, "uniform")
    assert int(uniform.min()) == 1 and int(uniform.max()) == 16


def test_prefix_marks_the_first_ones() -> None:
    assert nested_dropout.prefix(torch.tensor([0, 2, 3]), 3).int().tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_noised_lies_on_the_line_and_its_velocity_leads_back() -> None:
    latents, time = torch.randn(3, 4, 2), torch.tensor([0.0, 0.3, 1.0])
    x, velocity = flow.add_noise(latents, time)
    assert torch.allclose(x - time[:, None, None] * velocity, latents, atol=1e-6)
    assert torch.equal(x[0], latents[0])


class _Straight(flow.FlowDecoder):
    """Knows where the data is, so that its velocity is exact."""

    def __init__(self, target: Tensor) -> None:
        super().__init__(4, 2, tokens=3, dim=5, width=16, depth=1, heads=2)
        self.target = target

    def forward(self, noised: Tensor, time: Tensor, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        target = self.target if keep is None or bool(keep.any()) else torch.zeros_like(self.target)
        return (noised - target) / time[:, None, None]


@pytest.mark.parametrize("steps", [1, 4])
def test_euler_reaches_the_data_with_an_exact_velocity(steps: int) -> None:
    target = torch.randn(2, 4, 2)
    found = _Straight(target).sample(torch.zeros(2, 3, 5), [1, 2], steps)
    assert torch.allclose(found, target, atol=1e-5)


def test_guidance_goes_beyond_by_its_scale() -> None:
    """Without tokens the data is 0 and with them `target`, so scale 2 leads to twice the target."""
    target = torch.randn(2, 4, 2)
    found = _Straight(target).sample(torch.zeros(2, 3, 5), [1, 2], 5, guidance=2.0, keep=torch.ones(2, 3).bool())
    assert torch.allclose(found, 2 * target, atol=1e-4)


def test_noise_follows_the_seed_and_not_the_batch() -> None:
    both = flow.seeded_noise([5, 7], (4, 2))
    assert torch.equal(both[1:], flow.seeded_noise([7], (4, 2)))
    assert not torch.equal(both[0], both[1])
    assert float(flow.seeded_noise(range(64), (8, 8)).std()) == pytest.approx(1, abs=0.05)


def test_dropped_tokens_do_not_reach_the_flow() -> None:
    decoder = flow.FlowDecoder(4, 2, tokens=3, dim=5, width=16, depth=2, heads=2)
    with torch.no_grad():  # as initialised every block is the identity and nothing would be seen
        for parameter in decoder.parameters():
            parameter.normal_(std=0.3)
    x, time, tokens = torch.randn(1, 4, 2), torch.tensor([0.5]), torch.randn(1, 3, 5)
    keep = torch.tensor([[True, False, False]])
    expected = decoder(x, time, tokens, keep)
    tokens[:, 1:] += 3
    assert torch.allclose(decoder(x, time, tokens, keep), expected, atol=1e-5)
    tokens[:, 0] += 3
    assert not torch.allclose(decoder(x, time, tokens, keep), expected, atol=1e-3)


@pytest.mark.parametrize("gate", [0.0, 0.3])
def test_tokens_are_heard_from_the_first_step_where_gates_are_open(gate: float) -> None:
    """An encoder beside a decoder with closed gates gives it no information at first."""
    decoder = flow.FlowDecoder(4, 2, tokens=3, dim=5, width=16, depth=2, heads=2, gate=gate)
    torch.nn.init.normal_(decoder.head.weight)  # nothing at first, and open after one step
    tokens = torch.randn(1, 3, 5, requires_grad=True)
    decoder(torch.randn(1, 4, 2), torch.tensor([0.5]), tokens).square().sum().backward()
    assert tokens.grad is not None
    assert bool(tokens.grad.any()) == (gate > 0)


def test_logit_normal_times_lie_in_the_unit_interval() -> None:
    times = flow.logit_normal(4000, torch.device("cpu"))
    assert float(times.min()) > 0 and float(times.max()) < 1
    assert float(times.median()) == pytest.approx(0.5, abs=0.03)


def test_perceptual_distance_is_zero_at_home_and_grows_with_blur(photos: Tensor) -> None:
    reference = F.interpolate(photos[:2], (64, 64), mode="area") * 2 - 1
    blurred = [F.interpolate(F.avg_pool2d(reference, side), (64, 64), mode="bilinear") for side in (2, 4, 8)]
    distance = losses.Perceptual()
    found = [float(distance(image, reference)) for image in (reference, *blurred)]
    assert found[0] == pytest.approx(0, abs=1e-6)
    assert found == sorted(found)
    image = blurred[1].clone().requires_grad_()
    distance(image, reference).backward()
    assert image.grad is not None
    stepped = image.detach() - 0.02 * image.grad / image.grad.abs().max()
    assert float(distance(stepped, reference)) < found[2]


def test_cosine_is_zero_for_parallel_and_two_for_opposite() -> None:
    target = torch.randn(3, 4)
    assert float(losses.cosine(2 * target, target)) == pytest.approx(0, abs=1e-6)
    assert float(losses.cosine(-target, target)) == pytest.approx(2)


def test_contrast_is_least_where_matches_are_alike() -> None:
    vectors, scale = torch.eye(3), torch.tensor(50.0)
    same = torch.eye(3, dtype=torch.bool)
    assert float(losses.contrast(vectors, 7 * vectors, same, scale)) < 1e-6
    assert float(losses.contrast(vectors, vectors.roll(1, 0), same, scale)) == pytest.approx(50, rel=1e-5)
    equal = losses.contrast(torch.ones(3, 4), torch.ones(3, 4), same, scale)
    assert float(equal) == pytest.approx(float(torch.tensor(3.0).log()))
    pairs = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
    matched = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    assert float(losses.contrast(matched, matched, pairs, scale)) == pytest.approx(
        2 / 3 * float(torch.tensor(2.0).log())
    )
    several = torch.stack([vectors, vectors.roll(1, 0)])
    assert float(losses.contrast(several, vectors, same, scale)) == pytest.approx(25, rel=1e-5)


def test_contrast_is_least_where_pairs_agree_and_equal_captions_match() -> None:
    one = torch.eye(4)
    agreed = losses.contrast(one, 3 * one)  # lengths do not matter
    rest = 3 * torch.exp(torch.tensor(-1 / losses.TEMPERATURE))
    torch.testing.assert_close(agreed, torch.log1p(rest))
    assert losses.contrast(one, one.roll(1, 0)) > 10
    same = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.bool)
    swapped = one[[1, 0, 2, 3]]
    torch.testing.assert_close(losses.contrast(one, swapped, same), losses.contrast(one, one, same))


def test_supervised_contrast_by_hand() -> None:
    """Two vectors of one label and one of another, at right angles: each of the two must find the other."""
    vectors, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-3.0, 0.0]]), torch.tensor([0, 0, 1])
    first = math.log(1 + math.exp(-1 / 0.5))  # similarities 0 to its partner, -1 to the third
    second = math.log(2)  # 0 to both
    found = losses.supervised_contrast(vectors, labels, temperature=0.5)
    assert found.item() == pytest.approx((first + second) / 2, rel=1e-5)
    assert losses.supervised_contrast(vectors, torch.arange(3)).item() == 0
