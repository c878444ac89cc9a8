"""The task perturb: its grid, the operator, and the extensions for other tokens than those of one codebook."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tokbench import metric_names
from tokbench.errors import NotApplicable
from tokbench.evaluation.tasks import Perturb
from tokbench.nn import perturb
from tokbench.nn.quantizers.bits import BernoulliBits
from tokbench.nn.quantizers.lfq import LFQ
from tokbench.nn.quantizers.quantizer import Quantizer
from tokbench.nn.tokenizer import BottleneckAutoencoder, LearnedTokenizer
from tokbench.tokenizers import perturb as perturber
from tokbench.tokenizers.tokens import Tokens

KINDS = ["vq", "simvq", "fsq", "lfq", "bits", "product", "residual", "bins", "kl"]


def noise(count: int, seed: int = 0) -> Tensor:
    return 2 * torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) - 1


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def changes(
    model: LearnedTokenizer, images: Tensor, alpha: float, delta: int, anchor: str = "latent"
) -> tuple[Tensor, Tensor]:
    """Tokens before and after, each (B, N, G)."""
    made = model.perturber(anchor).prepare(images, range(len(images)), delta)(alpha, delta)
    return model.encode(images).tensor.flatten(1, -2), made.tensor.flatten(1, -2)


# The grid.


def test_deltas_are_those_of_the_paper_and_in_proportion_elsewhere(untrained) -> None:
    for size, listed in metric_names.DELTAS.items():
        assert metric_names.deltas(size) == list(listed)
    assert metric_names.deltas(2048) == [20, 30, 40]  # 1024 and 4096 are as near
    assert metric_names.deltas(1000) == [10, 15, 20]
    assert metric_names.deltas(65536) == [800, 1120, 1440]
    assert metric_names.deltas(2**40) == [delta * 2**26 for delta in metric_names.DELTAS[16384]]
    assert metric_names.deltas(64) == metric_names.deltas(2) == [2]
    for name, count in {"vq": 15, "fsq": 15, "lfq": 15, "product": 15, "bins": 5, "kl": 5}.items():
        assert len({step.cell for step in Perturb().steps(untrained(name))}) == count


# The operator.


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("anchor", ["latent", "code"])
def test_nothing_changes_at_alpha_0_and_at_delta_1(untrained, name: str, anchor: str) -> None:
    if anchor == "code" and name in ("lfq", "bits", "kl"):
        with pytest.raises(NotApplicable, match=f"{name}: .*anchor.*latent"):
            untrained(name).perturber("code")
        return
    for alpha, delta in ((0.0, 9), (1.0, 1)):
        if name != "kl" or not alpha:
            before, after = changes(untrained(name), noise(4), alpha, delta, anchor)
            assert torch.equal(before, after)


@pytest.mark.parametrize("name", ["vq", "product", "lfq"])
@pytest.mark.parametrize(("alpha", "delta"), [(0.9, 10), (0.5, 3)])
def test_as_many_change_as_should(untrained, name: str, alpha: float, delta: int) -> None:
    """Within four standard deviations of alpha (1 - 1 / delta)."""
    before, after = changes(untrained(name), noise(96), alpha, delta)
    differ = before != after
    share = differ if name == "product" else differ.any(-1)
    expected = alpha * (1 - 1 / delta)
    deviation = (expected * (1 - expected) / share.numel()) ** 0.5
    assert float(share.float().mean()) == pytest.approx(expected, abs=4 * deviation)


@pytest.mark.parametrize("anchor", ["latent", "code"])
@pytest.mark.parametrize("name", ["vq", "simvq", "product", "residual"])
def test_replacements_are_uniform_among_the_nearest(untrained, name: str, anchor: str) -> None:
    model, images, delta = untrained(name), noise(64), 5
    bottleneck = model.model.bottleneck
    assert isinstance(bottleneck, Quantizer)
    table = bottleneck.table().double()
    before, after = changes(untrained(name), images, 1.0, delta, anchor)
    anchors = bottleneck.anchors(model.model.latents(images).flatten(1, -2)).double()
    if anchor == "code":
        anchors = torch.stack([table[g][before[..., g]] for g in range(len(table))], 2)
    ranks = []
    for g in range(len(table)):
        gaps = torch.cdist(anchors[:, :, g].flatten(0, 1), table[g])
        own = gaps.gather(1, after[..., g].flatten()[:, None])
        ranks.append((gaps < own - 1e-5).sum(1))
    counts = torch.cat(ranks).bincount(minlength=delta)
    assert len(counts) == delta
    expected = len(torch.cat(ranks)) / delta
    assert (counts - expected).abs().max() < 4.5 * expected**0.5


def test_draws_depend_on_the_image_alone() -> None:
    whole = perturber.draw_uniform([3, 5, 7], 16, 2)
    for part in range(2):
        assert torch.equal(perturber.draw_uniform([7, 3], 16, 2)[part], whole[part][[2, 0]])
        assert torch.equal(perturber.draw_uniform([3, 5, 7], 9, 1)[part], whole[part][:, :9, :1])
    assert not torch.equal(*whole)


@pytest.mark.parametrize("name", KINDS)
def test_batches_and_order_change_nothing(untrained, name: str) -> None:
    model, images = untrained(name), noise(6)
    look = model.perturber("latent").prepare
    whole = look(images, range(6), 7)(0.8, 7)
    parts = [look(images[some], some, 7)(0.8, 7).tensor for some in ([5, 4], [3], [0, 2, 1])]
    assert torch.equal(torch.cat(parts), whole.tensor[[5, 4, 3, 0, 2, 1]])


def test_two_tokenizers_are_perturbed_in_the_same_places(untrained) -> None:
    def places(name: str) -> Tensor:
        before, after = changes(untrained(name), noise(8), 0.7, 12)
        return (before != after)[..., 0]

    assert torch.equal(places("vq"), places("simvq"))
    assert torch.equal(places("vq")[:, :8], places("fsq"))  # which has 8 tokens, the others 16


def test_only_tokens_that_count_are_perturbed(untrained) -> None:
    class Shorter(LearnedTokenizer):
        def encode(self, images: Tensor) -> Tokens:
            length = 1 + torch.arange(len(images))
            return Tokens.from_indices(super().encode(images).tensor, 200, length=length)

    torch.manual_seed(0)
    model = Shorter("shorter", untrained("fsq").model, prefixes=True, variable=True)
    made = model.perturber("latent").prepare(noise(8), range(8), 50)(1.0, 50)
    same = (made.tensor == model.encode(noise(8)).tensor)[..., 0]
    assert all(same[image, image + 1 :].all() for image in range(8))
    assert not same[:, 0].all()


# Extensions.


class Same(BottleneckAutoencoder):
    """Return equal latents at every position of every image."""

    def __init__(self, bottleneck: Quantizer, places: int) -> None:
        super().__init__()
        self.bottleneck, self.tokens = bottleneck, places
        self.row = torch.randn(bottleneck.dim)

    def encoded(self, images: Tensor) -> Tensor:
        return self.row.expand(len(images), self.tokens, -1)

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        return vectors.new_zeros(len(vectors), 3, 8, 8)


@pytest.mark.parametrize("bottleneck", [LFQ(3, 4), LFQ(12), BernoulliBits(12, 7)])
@pytest.mark.parametrize("delta", [2, 5, 16, 90])
def test_binary_tokens_have_just_delta_near_codes(
    bottleneck: Quantizer, delta: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All draws in turn; only the least certain bits move, and the least certain of all with every other draw."""
    torch.manual_seed(0)
    model = LearnedTokenizer("same", Same(bottleneck, delta).eval())
    even = ((torch.arange(delta, dtype=torch.float64) + 0.5) / delta)[None, :, None]
    monkeypatch.setattr(perturb, "draw_uniform", lambda seeds, positions, groups: (torch.zeros_like(even), even))
    clean = model.encode(noise(1)).tensor[0]
    made = model.perturber("latent").prepare(noise(1), [0], delta)(1.0, delta).tensor[0]
    assert torch.equal(made[0], clean[0])
    assert len({tuple(code) for code in made.tolist()}) == delta
    each = (bottleneck.codebook_size - 1).bit_length()
    moved = ((made ^ clean)[..., None] >> torch.arange(each) & 1).flatten(1)
    anchors = bottleneck.anchors(model.model.latents(noise(1)))[0, 0].flatten()
    certainty = (anchors - (0.5 if isinstance(bottleneck, BernoulliBits) else 0)).abs()
    order = certainty.argsort()
    assert not moved[:, order[(delta - 1).bit_length() :]].any()
    assert moved[:, order[0]].tolist() == [draw % 2 for draw in range(delta)]


def test_tokens_of_too_many_bits_are_refused() -> None:
    torch.manual_seed(0)
    model = LearnedTokenizer("long", Same(BernoulliBits(64, 4), 2))
    with pytest.raises(NotApplicable, match="tokens of 64 bits cannot be perturbed"):
        model.perturber("latent")


def test_noise_has_the_deviation_of_each_image(untrained) -> None:
    model = untrained("kl")
    images = noise(16) * torch.linspace(0.2, 1, 16)[:, None, None, None]
    clean = model.encode(images).tensor.float().flatten(1)
    look = model.perturber("latent").prepare(images, range(16), 1)
    first, second = ((look(alpha, 1).tensor.float().flatten(1) - clean) for alpha in (0.5, 0.9))
    assert (first.std(1) / clean.std(1)).mean() == pytest.approx(0.5, rel=0.05)
    torch.testing.assert_close(second / 0.9, first / 0.5, atol=5e-3, rtol=5e-2)
    assert (first.std(1) / clean.std(1) - 0.5).abs().max() < 0.2
