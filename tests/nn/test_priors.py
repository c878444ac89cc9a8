"""Priors over tokens: by algebra, and sampled as they are trained."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tokbench.errors import AdapterError
from tokbench.nn.priors.flow import Flow
from tokbench.nn.priors.gpt import GPT
from tokbench.nn.priors.maskgit import MaskGIT, fill, masked_at, masks
from tokbench.nn.priors.prior import DROPPED, Prior, PriorGenerator, encode_dataset
from tokbench.nn.priors.regression import NextEmbedding
from tokbench.nn.priors.sampling import apply_cfg, choose, scale_at, uniforms
from tokbench.nn.trainable import TrainingBatch, TrainingData
from tokbench.training.loop import TrainConfig, batches, train

CLASSES, SIZE, CODES = 5, 16, 11
"""Size and codes are those of the stand-in's tokens."""


SMALL = {"size": SIZE, "classes": CLASSES, "width": 32, "depth": 2, "heads": 2}


@pytest.fixture
def made(levels: Any) -> Any:
    """Makes a small prior whose every weight matters."""

    def make(kind: type[Prior], groups: int = 1) -> Any:
        torch.manual_seed(0)
        prior = kind(levels(groups, kind.wants == "continuous"), **SMALL)  # type: ignore[arg-type]
        with torch.no_grad():  # a head of zeros would hide whatever comes before it
            for parameter in prior.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        # Its rounding errors grow from token to token, and in float64 they stay far below the tolerances.
        return prior.eval().double() if kind is NextEmbedding else prior.eval()

    return make


KINDS: list[Any] = [GPT, MaskGIT, Flow, NextEmbedding]
LABELS, SEEDS = torch.tensor([0, 3, 1, 3, 2]), [7, 8, 9, 10, 11]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_the_same_seed_gives_the_same_sample_at_any_batch_size(kind: type[Prior], guidance: float, made: Any) -> None:
    prior = made(kind)
    whole = prior.sample(LABELS, SEEDS, guidance)
    for size in (1, 2):
        parts = [prior.sample(LABELS[i : i + size], SEEDS[i : i + size], guidance) for i in range(0, 5, size)]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-4, atol=1e-4)
    assert not torch.equal(whole[1], whole[3])  # one class, two seeds


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_of_one_is_conditional_sampling(kind: type[Prior], monkeypatch: pytest.MonkeyPatch, made: Any) -> None:
    """At scale 1 the unconditional network is not used; at a scale near 1 both networks are."""
    prior = made(kind)
    plain, near = prior.sample(LABELS, SEEDS, 1.0), prior.sample(LABELS, SEEDS, 1.0 + 1e-9)
    torch.testing.assert_close(plain, near, rtol=1e-4, atol=1e-4)
    far = prior.sample(LABELS, SEEDS, 6.0)
    assert (plain != far).float().mean() > 0.1
    assert prior.num_function_evaluations(2.0) == 2 * prior.num_function_evaluations(1.0)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_cache_changes_nothing(groups: int, guidance: float, made: Any) -> None:
    prior = made(GPT, groups)
    with_cache, without = (prior.sample(LABELS, SEEDS, guidance, cached=cached) for cached in (True, False))
    assert with_cache.shape == (5, 16, groups)
    assert torch.equal(with_cache, without)


def test_no_position_of_a_gpt_sees_itself_or_later_ones(made: Any) -> None:
    prior = made(GPT)
    rows = torch.randint(0, CODES, (2, 15, 1), generator=torch.Generator().manual_seed(0))
    other = rows.clone()
    other[:, 9:] = (other[:, 9:] + 1) % CODES
    first, second = (prior.logits(LABELS[:2], given) for given in (rows, other))
    torch.testing.assert_close(first[:, :10], second[:, :10])
    assert not torch.allclose(first[:, 10:], second[:, 10:])


def test_a_regression_s_loss_is_the_unexplained_share_of_the_variance(made: Any, levels: Any) -> None:
    prior = NextEmbedding(levels(continuous=True), **SMALL)  # its head is zero, so it predicts the mean
    rows = torch.randn(64, prior.count, prior.depth, generator=torch.Generator().manual_seed(0)) * 3 + 1
    prior.mean.copy_(rows.mean(0))
    prior.deviation.copy_(rows.std(0, correction=0))
    batch = TrainingBatch(torch.zeros(64, 3, SIZE, SIZE), torch.arange(64) % CLASSES, rows)
    assert float(prior.loss(batch, 0.0)["next"].detach()) == pytest.approx(1.0, abs=1e-5)
    with torch.no_grad():
        prior.finish(batch)
    torch.testing.assert_close(prior.error, torch.ones(16))
    stirred, rows = made(NextEmbedding), rows.double()
    with torch.no_grad():
        prediction = stirred.predict(LABELS[:2], rows[:2, :15])
        other = rows[:2, :15].clone()
        other[:, 9:] += 1
        changed = stirred.predict(LABELS[:2], other)
    torch.testing.assert_close(prediction[:, :10], changed[:, :10])
    assert not torch.allclose(prediction[:, 10:], changed[:, 10:])
    stirred.noise = 0.0
    drawn = stirred.sample(LABELS[:2], SEEDS[:2], 1.0)
    with torch.no_grad():  # a sample without noise is the sequence that the network predicts from its own start
        torch.testing.assert_close(stirred.predict(LABELS[:2], drawn[:, :15]), drawn, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("steps", "count"), [(8, 64), (1, 5), (16, 16), (12, 13), (8, 256)])
def test_the_schedule_masks_less_each_step_and_nothing_at_last(steps: int, count: int) -> None:
    left = [count, *(masked_at(step, steps, count) for step in range(1, steps + 1))]
    assert left[-1] == 0
    assert all(later < earlier for earlier, later in itertools.pairwise(left))


def test_every_token_is_kept_exactly_once() -> None:
    seen: list[Tensor] = []

    def look(rows: Tensor, masked: Tensor, step: int) -> Tensor:
        seen.append(masked.clone())
        if step > 1:  # what was kept before has not changed
            kept = ~seen[-1] & ~seen[-2]
            assert torch.equal(rows[kept], before[0][kept])
        before[:] = [rows.clone()]
        return torch.randn(3, 20, 2, CODES, generator=torch.Generator().manual_seed(step))

    before: list[Tensor] = []
    fill(look, SEEDS[:3], 20, 2, [1.0] * 6, 4.5, torch.device("cpu"))
    assert seen[0].all()
    revealed = [earlier & ~later for earlier, later in zip(seen, [*seen[1:], torch.zeros_like(seen[0])], strict=True)]
    assert torch.equal(torch.stack(revealed).sum(0), torch.ones(3, 20, dtype=torch.long))
    assert not any((later & ~earlier).any() for earlier, later in itertools.pairwise(seen))


def test_without_chance_the_most_certain_are_kept() -> None:
    """Choice 0 and temperature 0: each step reveals the positions whose best code is likeliest."""
    certainty = torch.randperm(20, generator=torch.Generator().manual_seed(3)).double() / 5 + 1
    logits = torch.zeros(1, 20, 1, CODES, dtype=torch.float64)
    logits[0, :, 0, 4] = certainty
    order: list[int] = []

    def look(rows: Tensor, masked: Tensor, step: int) -> Tensor:
        hidden = masked[0].nonzero().flatten().tolist()
        order.extend(place for place in range(20) if place not in hidden and place not in order)
        return logits

    rows = fill(look, [1], 20, 1, [0.0] * 20, 0.0, torch.device("cpu"))
    assert order == certainty.argsort(descending=True).tolist()[: len(order)]
    assert (rows == 4).all()


def test_masks_follow_the_cosine() -> None:
    torch.manual_seed(0)
    found = masks(20_000, 16).float()
    assert found.sum(1).min() >= 1
    assert float(found.mean()) == pytest.approx(2 / math.pi, abs=0.05)  # the mean of cos(pi/2 u), rounded up
    torch.testing.assert_close(found.mean(0), found.mean().expand(16), rtol=0, atol=0.02)


class TestChoice:
    logits = torch.tensor([2.0, 0.5, 1.0, -1.0])

    def shares(self, **how: Any) -> np.ndarray:
        noise = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
        found = choose(self.logits.expand(100_000, -1), noise, **how)
        return np.bincount(found.numpy(), minlength=4) / 100_000

    def test_it_follows_the_distribution(self) -> None:
        np.testing.assert_allclose(self.shares(), self.logits.softmax(0).numpy(), atol=2e-5)
        np.testing.assert_allclose(self.shares(temperature=0.5), (2 * self.logits).softmax(0).numpy(), atol=2e-5)

    def test_few_of_the_most_likely(self) -> None:
        chances = self.logits.softmax(0)
        wanted = torch.tensor([chances[0], 0, chances[2], 0])
        np.testing.assert_allclose(self.shares(top_k=2), (wanted / wanted.sum()).numpy(), atol=2e-5)
        edge = float(chances[0] + chances[2] / 2)
        np.testing.assert_allclose(self.shares(top_p=edge), (wanted / wanted.sum()).numpy(), atol=2e-5)
        assert self.shares(top_p=1e-9)[0] == 1
        assert self.shares(temperature=0)[0] == 1

    def test_the_ends_of_the_noise(self) -> None:
        ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
        found = choose(self.logits.expand(2, -1), ends, top_k=3)
        assert found.tolist() == [0, 1]


def test_schedules_of_guidance() -> None:
    assert [scale_at(share, 3.0, "constant") for share in (0, 0.5, 1)] == [3, 3, 3]
    assert [scale_at(share, 3.0, "linear") for share in (0, 0.5, 1)] == [1, 2, 3]
    assert [scale_at(share, 3.0, "half-linear") for share in (0, 0.25, 0.5, 1)] == [1, 2, 3, 3]
    both = torch.tensor([[3.0], [1.0]])
    assert [float(apply_cfg(both, scale)) for scale in (0, 1, 2)] == [1, 3, 5]


def test_noise_depends_on_the_seed_alone() -> None:
    first, second = uniforms([1, 2], 3, 4), uniforms([2], 3, 4)
    assert torch.equal(first[1], second[0])
    assert first.min() >= 0
    assert first.max() < 1


@pytest.fixture
def material() -> TrainingData:
    """Images of one grey a class, left half darker."""
    labels = torch.arange(400) % CLASSES
    images = (labels * 50)[:, None, None, None].expand(-1, 3, SIZE, SIZE).clone()
    images[:, :, :, : SIZE // 2] //= 2
    return TrainingData(images.to(torch.uint8), labels)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_what_a_class_looks_like(
    kind: type[Prior], material: TrainingData, private_cache: Any, levels: Any
) -> None:
    torch.manual_seed(0)
    prior = kind(levels(continuous=kind.wants == "continuous"), **SMALL)  # type: ignore[arg-type]
    studied = prior.prepare_data(material, "cpu", False, lambda *_: None)
    train(prior, studied, TrainConfig(images=9600, batch=32, rate=4e-3, flip=False, average=0.9))
    generator = PriorGenerator("prior.x", prior, 1.0)
    labels = torch.arange(CLASSES).repeat(4)
    tokens = generator.sample(labels, list(range(len(labels))), 1.5)
    images = generator.tokenizer.decode(tokens, [0] * len(labels))
    wanted = (labels * 50 / 255)[:, None]
    left, right = images[..., : SIZE // 2].mean((1, 2, 3)), images[..., SIZE // 2 :].mean((1, 2, 3))
    difference = torch.stack([left, right], 1) - torch.cat([wanted / 2, wanted], 1)
    assert difference.abs().mean() < 0.06


def test_tokens_are_encoded_once(material: TrainingData, made: Any) -> None:
    prior = made(GPT)
    before = prior.tokenizer.encodings
    first = encode_dataset(prior, material, "cpu", True, lambda *_: None)
    assert prior.tokenizer.encodings == before + 800
    again = encode_dataset(prior, material, "cpu", True, lambda *_: None)
    assert prior.tokenizer.encodings == before + 800
    assert torch.equal(first, again)
    assert first.shape == (2, 400, 16, 1)
    grid = first.reshape(2, 400, 4, 4)
    assert torch.equal(grid[1], grid[0].flip(2))
    prior.tokenizer.identity = "mended"  # the same weights, but other code around them
    encode_dataset(prior, material, "cpu", True, lambda *_: None)
    assert prior.tokenizer.encodings == before + 1600


def test_batches_hold_the_tokens_of_their_images(material: TrainingData, made: Any) -> None:
    prior = made(GPT)
    studied = prior.prepare_data(material, "cpu", True, lambda *_: None)
    for _, batch in zip(range(5), batches(studied, TrainConfig(images=1, batch=16), "cpu"), strict=False):
        seen = prior.rows(prior.tokenizer.encode((batch.images + 1) / 2))
        assert torch.equal(seen, batch.tokens.long())


def test_some_classes_are_hidden(made: Any) -> None:
    torch.manual_seed(0)
    hidden = made(GPT).drop_labels(torch.ones(20_000, dtype=torch.long))
    assert set(hidden.tolist()) == {1, CLASSES}
    assert float((hidden == CLASSES).float().mean()) == pytest.approx(DROPPED, abs=0.01)


def test_what_no_prior_can_learn_from(made: Any, levels: Any) -> None:
    with pytest.raises(AdapterError, match="use a dataset with labels"):
        made(GPT).loss(TrainingBatch(torch.zeros(1, 3, SIZE, SIZE)), 0.0)
    with pytest.raises(AdapterError, match="not discrete, as this prior requires"):
        GPT(levels(continuous=True), **SMALL)
    with pytest.raises(AdapterError, match="not continuous, as this prior requires"):
        Flow(levels(), **SMALL)
    with pytest.raises(AdapterError, match="takes images of 16 px, not 32"):
        GPT(levels(), size=32, classes=2)
    labels = torch.tensor([0, CLASSES])
    with pytest.raises(AdapterError, match="labels are 0 to 5, but the classes are 0 to 4"):
        made(GPT).prepare_data(
            TrainingData(torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8), labels), "cpu", False, print
        )


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (GPT, {"schedule": "lineer"}, "schedule 'lineer': must be one of constant, linear, half-linear"),
        (GPT, {"top_k": 0}, "top_k 0: must be 1 or more; leave it out"),
        (GPT, {"top_p": 0.0}, "top_p 0: must be in"),
        (GPT, {"temperature": -1.0}, "temperature -1: must be 0 or more"),
        (MaskGIT, {"temperature": -1.0}, "temperature -1"),
        (MaskGIT, {"steps": 0}, "0 steps for 16 tokens: .*use 1 to 16 steps"),
        (MaskGIT, {"steps": 17}, "17 steps for 16 tokens"),
        (Flow, {"steps": 0}, "steps is 0; it must be 1 or more"),
    ],
)
def test_what_cannot_be_sampled_with(kind: Any, changes: dict[str, Any], message: str, levels: Any) -> None:
    with pytest.raises(AdapterError, match=message):
        kind(levels(continuous=kind.wants == "continuous"), **SMALL, **changes)
