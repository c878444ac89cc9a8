"""Probe, retrieval and code prediction, on features and sources whose numbers are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.errors import NotApplicable
from tokbench.metrics import code_prediction
from tokbench.metrics.batch import Batch
from tokbench.metrics.classify import nearest_classes, ridge_classes, scaled
from tokbench.metrics.code_prediction import CodePrediction, split_base, to_digits
from tokbench.metrics.probe import Probe
from tokbench.metrics.retrieval import Retrieval, rank_candidates
from tokbench.metrics.zero_shot import ZeroShot
from tokbench.testing.metrics import ExampleTokenizer
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.captioned import TextAligned
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens


class Latents(Tokenizer):
    """Images of 8x8 pixels as four tokens, one per two rows, which hold the means of their left and right half."""

    spec = TokenizerSpec("latents", "continuous", num_tokens=4, bits_per_token=96)

    def encode(self, images: Tensor) -> Tokens:
        return Tokens.from_latents(F.avg_pool2d(images, (2, 4)).transpose(1, 2).flatten(2), 4)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        means = tokens.tensor.float().unflatten(2, (3, 2)).transpose(1, 2)
        return F.interpolate(means, scale_factor=(2.0, 4.0))


def probed(vectors: Tensor, labels: Tensor) -> dict[str, float]:
    """The numbers for tokens (n, 4, 6) and labels (n,)."""
    metric, count = Probe(Latents()), len(vectors)
    images = torch.zeros(count, 3, 8, 8)
    metric.update(Batch(torch.arange(count), images, images, Tokens.from_latents(vectors, 4), labels=labels))
    intervals = metric.intervals(0)
    numbers = metric.compute()
    assert all(intervals[name].low <= value <= intervals[name].high for name, value in numbers.items())
    return numbers


@pytest.fixture
def drawn() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(300, 4, 6, generator=generator), torch.randint(0, 3, (300,), generator=generator)


def test_separable_features_give_all_and_random_labels_give_chance(drawn) -> None:
    noise, labels = drawn
    centres = 6 * torch.eye(3, 6)[labels][:, None]
    numbers = probed(noise + centres, labels)
    assert numbers.pop("probe_knn_noisy") > 0.95 and set(numbers.values()) == {1.0}
    for value in probed(noise, labels).values():
        assert abs(value - 1 / 3) < 4 * math.sqrt(2 / 9 / 300)


def test_pooling_loses_what_only_single_positions_have(drawn) -> None:
    noise, labels = drawn
    shift = torch.zeros(300, 4, 6)
    shift[:, 0], shift[:, 1] = 6 * torch.eye(3, 6)[labels], -6 * torch.eye(3, 6)[labels]
    numbers = probed(noise + shift, labels)
    assert numbers["probe_linear"] == 1 and numbers["probe_linear_pooled"] < 0.5


def test_a_class_apart_is_found_by_neighbours_and_not_by_lines() -> None:
    """Points on a circle, whose opposite quarters have the same class."""
    angle = torch.linspace(0, 40 * math.pi, 400)
    points = torch.stack([angle.cos(), angle.sin()], 1)
    labels = (points.prod(1) > 0).long()
    numbers = probed(points[:, None].repeat(1, 4, 3), labels)
    assert numbers["probe_knn"] > 0.95 and numbers["probe_linear"] < 0.7


@pytest.mark.parametrize("count", [30, 200])
def test_ridge_agrees_with_the_textbook(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In both forms: more values than images, and fewer."""
    monkeypatch.setattr("tokbench.metrics.classify.PENALTIES", (0.5,))
    generator = torch.Generator().manual_seed(1)
    train = torch.randn(count, 60, generator=generator, dtype=torch.float64)
    test = torch.randn(50, 60, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (count,), generator=generator)
    x, y = train - train.mean(0), torch.nn.functional.one_hot(labels, 4).double()
    penalty = 0.5 * torch.linalg.eigvalsh(x.T @ x if count > 60 else x @ x.T).mean()
    weights = torch.linalg.solve(x.T @ x + penalty * torch.eye(60), x.T @ (y - y.mean(0)))
    expected = ((test - train.mean(0)) @ weights + y.mean(0)).argmax(1)
    assert torch.equal(ridge_classes(train, labels, test, 4), expected)


def test_the_penalty_is_chosen_by_leaving_one_out() -> None:
    """With 60 noisy values for 80 images, a large penalty predicts better than a small one."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(80) % 2
    train = torch.randn(80, 60, generator=generator, dtype=torch.float64)
    train[:, :3] += 1.5 * labels[:, None]
    test = torch.randn(400, 60, generator=generator, dtype=torch.float64)
    test[:, :3] += 1.5 * (torch.arange(400) % 2)[:, None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tokbench.metrics.classify.PENALTIES", (1e-3,))
        small = (ridge_classes(train, labels, test, 2) == torch.arange(400) % 2).double().mean()
    chosen = (ridge_classes(train, labels, test, 2) == torch.arange(400) % 2).double().mean()
    assert chosen > small


def test_constant_features_do_not_matter(drawn) -> None:
    features = drawn[0].flatten(1).double()
    padded = scaled(torch.cat([features, torch.full((300, 2), 7.0)], 1))
    torch.testing.assert_close(padded[:, :-2], scaled(features))
    assert padded[:, -2:].eq(0).all()
    assert torch.equal(nearest_classes(padded, drawn[1], padded, 3), nearest_classes(scaled(features), drawn[1],
                                                                                     scaled(features), 3))  # fmt: skip


def test_probe_refuses_what_it_cannot_read(drawn) -> None:
    with pytest.raises(NotApplicable, match="50 or more images"):
        probed(drawn[0][:40], drawn[1][:40])
    with pytest.raises(NotApplicable, match="same label"):
        probed(drawn[0], torch.zeros(300, dtype=torch.long))
    with pytest.raises(NotApplicable, match="at most 32,768 are probed"):
        probed(torch.zeros(60, 4, 10_000), torch.arange(60))


def test_latents_of_an_image_give_it_back() -> None:
    image = torch.rand(2, 3, 4, 2).repeat_interleave(2, 2).repeat_interleave(4, 3)
    torch.testing.assert_close(Latents().decode(Latents().encode(image), [0, 0]), image, atol=1e-3, rtol=0)


@pytest.mark.parametrize("layout", [(0, 1, 2), (0, 2, 1)])
def test_latents_of_either_layout_are_the_same_vectors(layout: tuple[int, ...], drawn) -> None:
    vectors = drawn[0].half().float()
    tokens = Tokens.from_latents(vectors.permute(layout), 4)
    assert torch.equal(Latents().vectors(tokens), vectors)


class Cubes(Tokenizer):
    """Latents of one token per 8 x 8 px with as many channels as an image of 32 px has rows of tokens."""

    def __init__(self, channels_last: bool, size: int | None = None, stated: bool | None = None) -> None:
        self.spec = TokenizerSpec("cubes", "continuous", multiple=8, downsample=8, size=size)
        self.axes, self.stated = (0, 2, 3, 1) if channels_last else (0, 1, 2, 3), stated

    def encode(self, images: Tensor) -> Tokens:
        means = F.avg_pool2d(images, 8)
        latents = torch.cat([means, means[:, :1] ** 2], 1)
        return Tokens.from_latents(latents.permute(self.axes), latents[0, 0].numel(), self.stated)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        latents = tokens.tensor.float().permute(np.argsort(self.axes).tolist())
        return latents[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3)


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_layout_of_a_cube_of_latents_is_found_or_stated(channels_last: bool) -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = F.avg_pool2d(images, 8).permute(0, 2, 3, 1)
    for model in (Cubes(channels_last), Cubes(channels_last, 32, channels_last)):
        tokens = model.encode(images)
        torch.testing.assert_close(model.vectors(tokens)[..., :3], expected, atol=1e-3, rtol=0)
        flipped = model.with_layout(tokens).map_grid((4, 4), lambda maps: maps.flip(-1))
        torch.testing.assert_close(model.decode(flipped, [0, 1]), model.decode(tokens, [0, 1]).flip(-1))
    model = Cubes(channels_last, 32)
    tokens = model.encode(images)
    with pytest.raises(NotApplicable, match="can have their channels first or last"):
        model.vectors(tokens)
    with pytest.raises(NotApplicable, match="can have their channels first or last"):
        model.with_layout(tokens).map_grid((4, 4), lambda maps: maps.flip(-1))


def test_codes_without_vectors_are_refused() -> None:
    class Codes(Latents):
        spec = TokenizerSpec("codes", "discrete", num_tokens=4, codebook={"codes": 8})

    with pytest.raises(NotApplicable, match="does not define vectors of its codes"):
        Codes().vectors(Tokens.from_indices(torch.zeros(2, 4, dtype=torch.long), 8))


def test_ranks_of_candidates() -> None:
    """Images 0 and 1 have the caption 0. Image 1 finds it second; ties are lost."""
    similarity = torch.tensor([[0.9, 0.1, 0.3], [0.2, 0.8, 0.1], [0.4, 0.6, 0.5], [0.7, 0.7, 0.7]])
    by_image, by_caption = rank_candidates(similarity, torch.tensor([0, 0, 1, 2]))
    assert by_image.tolist() == [0, 1, 0, 2]
    assert by_caption.tolist() == [0, 0, 2, 0]


def test_candidates_without_a_number_are_not_found() -> None:
    """NaN is not smaller than anything, and found every caption and every image."""
    for ranks in rank_candidates(torch.full((3, 3), torch.nan), torch.arange(3)):
        assert ranks.tolist() == [2, 2, 2]


class Aligned(TextAligned, Latents):
    """Embeds a caption as the number in it, and tokens as their first values."""

    def token_embeddings(self, tokens: Tokens) -> Tensor:
        return tokens.tensor[:, 0].float()

    def caption_embeddings(self, captions: Sequence[str]) -> Tensor:
        return torch.eye(6)[[int(caption.split()[-1]) for caption in captions]]


@pytest.mark.parametrize("right", [True, False])
def test_retrieval_finds_aligned_embeddings(right: bool) -> None:
    numbers = torch.arange(60) % 6
    vectors = torch.zeros(60, 4, 6)
    if right:
        vectors[:, 0] = torch.eye(6)[numbers]
    metric = Retrieval(Aligned())
    captions = [f"number {number}" for number in numbers.tolist()]
    metric.update(
        Batch(torch.arange(60), tokens=Tokens.from_latents(vectors + 1e-3 * (not right), 4), captions=captions)
    )
    assert set(metric.compute().values()) == {float(right)}
    assert all(interval.low <= float(right) <= interval.high for interval in metric.intervals(0).values())


def test_retrieval_needs_a_joint_space_and_several_captions() -> None:
    with pytest.raises(NotApplicable, match="does not embed tokens and captions"):
        Retrieval(Latents())
    metric, codes = Retrieval(ExampleTokenizer()), torch.zeros(2, 4, 4, dtype=torch.long)
    metric.update(Batch(torch.arange(2), tokens=Tokens.from_indices(codes, 16), captions=["a", "a"]))
    with pytest.raises(NotApplicable, match="same caption"):
        metric.compute()


class Named(TextAligned, Latents):
    """Embeds a caption by its class and, a little, by its colour, and tokens as their first values."""

    def token_embeddings(self, tokens: Tokens) -> Tensor:
        return tokens.tensor[:, 0].float()

    def caption_embeddings(self, captions: Sequence[str]) -> Tensor:
        words = [caption.replace(",", "").split() for caption in captions]
        colours = torch.tensor([[0.0, 0.0, 0.0, 0.3 * (line[-1] == "red"), 0.0, 0.0] for line in words])
        return torch.eye(6)[[["cat", "dog", "fox"].index(line[4]) for line in words]] + colours


def zero_shot(captions: Sequence[str], vectors: Tensor) -> float:
    metric, tokens = ZeroShot(Named()), torch.zeros(len(captions), 4, 6)
    tokens[:, 0] = vectors
    metric.update(Batch(torch.arange(len(captions)), tokens=Tokens.from_latents(tokens, 4), captions=list(captions)))
    return metric.compute()["zero_shot_top1"]


def test_classes_are_found_by_captions_of_all_colours() -> None:
    """The colour of the image's own caption does not help: all classes have captions of all colours."""
    captions = [f"a photo of a {name}, mostly {colour}" for name in ("cat", "dog", "fox") for colour in ("red", "blue")]
    own = torch.eye(6)[[0, 0, 1, 1, 2, 2]]
    assert zero_shot(captions, own) == 1
    assert zero_shot(captions, own[[0, 0, 2, 2, 0, 2]]) == pytest.approx(4 / 6)
    assert zero_shot(captions, torch.eye(6)[[3] * 6]) == 0, "a tie is lost"


def test_zero_shot_needs_captions_of_classes() -> None:
    with pytest.raises(NotApplicable, match="does not name the class"):
        zero_shot(["two red circles", "a photo of a cat"], torch.zeros(2, 6))
    with pytest.raises(NotApplicable, match="same class"):
        zero_shot(["a photo of a cat, mostly red", "a photo of a cat, mostly blue"], torch.zeros(2, 6))
    with pytest.raises(NotApplicable, match="does not embed tokens and captions"):
        ZeroShot(Latents())


def test_noise_hides_small_differences_from_neighbours(drawn) -> None:
    """Two clusters of 24 values each: apart without noise, and mostly apart when half of each value is noise."""
    labels = torch.arange(300) % 2
    clean = (2.0 * labels[:, None, None] - 1) * torch.ones(300, 4, 6)
    numbers = probed(clean + 1e-3 * drawn[0], labels)
    assert numbers["probe_knn"] == 1
    assert numbers["probe_knn_noisy"] > 0.95
    few = clean * torch.eye(4)[0][:, None] * torch.eye(6)[0] + drawn[0] * 1e-3
    numbers = probed(few, labels)
    assert 0.5 < numbers["probe_knn_noisy"] < numbers["probe_knn"]


def predicted(codes: np.ndarray, size: int, groups: int = 1, length: Tensor | None = None) -> dict[str, float]:
    metric, tokens = CodePrediction(), Tokens.from_indices(torch.as_tensor(codes), size, groups=groups, length=length)
    metric.update(Batch(torch.arange(len(codes)), tokens=tokens))
    return metric.compute()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_prediction, "STEPS", 60)
    monkeypatch.setattr(code_prediction, "DIGITS_PER_STEP", 512)


@pytest.mark.slow
def test_a_markov_source_is_predicted_to_its_entropy(short, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next code follows from the last one in 90 % of cases, else all are equally likely."""
    monkeypatch.setattr(code_prediction, "STEPS", 150)
    rng, size = np.random.default_rng(0), 8
    codes = np.zeros((600, 16), dtype=int)
    codes[:, 0] = rng.integers(0, size, 600)
    for at in range(1, 16):
        codes[:, at] = np.where(rng.random(600) < 0.9, (codes[:, at - 1] * 5 + 3) % size, rng.integers(0, size, 600))
    likely = 0.9 + 0.1 / size
    entropy = -likely * math.log2(likely) - (1 - likely) * math.log2(0.1 / size)
    expected = (math.log2(size) + 15 * entropy) / 16
    numbers = predicted(codes, size)
    assert expected - 0.12 < numbers["gpt_bits_per_token"] < expected + 0.15
    assert numbers["gpt_bits_share"] == pytest.approx(numbers["gpt_bits_per_token"] / 3, rel=1e-5)
    assert numbers["gpt_order0_share"] == pytest.approx(
        numbers["gpt_bits_share"], rel=0.01
    )  # all codes are as frequent


@pytest.mark.slow
def test_equally_likely_codes_cannot_be_predicted(short) -> None:
    numbers = predicted(np.random.default_rng(1).integers(0, 4, (1500, 8, 2)), 4, groups=2)
    assert 3.99 < numbers["gpt_bits_per_token"] < 4.15


@pytest.mark.slow
def test_a_codebook_of_which_little_is_used_is_no_easier_to_predict_than_its_frequencies(short) -> None:
    """Independent codes: one value in nine of ten places, else one of 15 others."""
    rng = np.random.default_rng(3)
    codes = np.where(rng.random((1500, 8)) < 0.9, 0, rng.integers(1, 16, (1500, 8)))
    numbers = predicted(codes, 32)
    assert numbers["gpt_bits_share"] < 0.25
    assert 0.98 < numbers["gpt_order0_share"] < 1.15


@pytest.mark.slow
def test_only_tokens_that_count_are_measured(short) -> None:
    """Random codes after the fourth token of each image do not count; the others are constant."""
    codes = np.random.default_rng(2).integers(0, 64, (200, 8))
    codes[:, :4] = 7
    numbers = predicted(codes, 64, length=torch.full((200,), 4))
    assert numbers["gpt_bits_per_token"] < 0.3


@pytest.mark.parametrize("size", [1, 2, 1024, 1025, 4096, 2**18, 2**40])
def test_codes_are_sums_of_their_digits(size: int) -> None:
    bases = split_base(size)
    assert max(bases) <= 1024 and math.prod(bases) >= size
    codes = np.array([0, size // 3, size - 1])
    total = np.zeros(3, dtype=np.int64)
    for digit, base in zip(to_digits(codes, bases), bases, strict=True):
        assert digit.max() < base
        total = total * base + digit
    assert total.tolist() == codes.tolist()
