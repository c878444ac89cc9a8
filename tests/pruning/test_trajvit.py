"""trajvit: exact and cheap trajectories, their tokens, and the benchmark of networks with tokens of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from small_networks import train_networks
from torch import Tensor

from tokbench.cli import main
from tokbench.errors import DataError
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import Shape
from tokbench.pruning.clips.methods import Uniform
from tokbench.pruning.clips.trajectories import from_masks, tracked
from tokbench.pruning.clips.trajvit import SIDE, TrajectoryClassifier
from tokbench.pruning.result import load_all

SMALL = Shape(width=16, depth=2, heads=2)


def made(source: Any, **options: Any) -> TrajectoryClassifier:
    torch.manual_seed(0)
    return TrajectoryClassifier(SMALL, 4, source=source, **options).eval()


@pytest.fixture
def moving() -> tuple[Tensor, Tensor]:
    """A white square of 16 px on black that moves by 4 px a frame to the right: a clip (1, 6, 3, 64, 64) and its
    masks."""
    masks = torch.zeros(1, 6, 64, 64, dtype=torch.uint8)
    for time in range(6):
        masks[0, time, 24:40, 4 + 4 * time : 20 + 4 * time] = 1
    return masks[:, :, None].expand(-1, -1, 3, -1, -1).float() * 2 - 1, masks


def test_exact_numbers_are_those_of_the_masks(moving: tuple[Tensor, Tensor]) -> None:
    numbers = from_masks(moving[1], SIDE)
    assert numbers.shape == (1, 6, SIDE, SIDE) and (numbers.flatten(2).sum(2) == 16).all()
    assert numbers[0, 2, 6:10, 3:7].all()


def test_cheap_trajectories_follow_a_moving_object(moving: tuple[Tensor, Tensor]) -> None:
    clips, masks = moving
    numbers, exact = tracked(clips, 4, SIDE), from_masks(masks, SIDE).bool()
    own = {int(number) for number in numbers[0, 0][exact[0, 0]]}
    for time in range(1, 6):
        assert {int(number) for number in numbers[0, time][exact[0, time]]} <= own
        assert not own & {int(number) for number in numbers[0, time][~exact[0, time]]}


def test_tokens_are_counted_and_absent_ones_change_nothing(moving: tuple[Tensor, Tensor]) -> None:
    clips, masks = moving
    network = made("oracle")
    assert network.tokens(clips, masks).tolist() == [2]
    assert made("patches").tokens(clips).tolist() == [3 * 64]
    assert 2 <= int(made("tracked").tokens(clips)) <= 16
    with torch.no_grad():
        tokens, present = network.trajectories(clips, network.numbers(clips, masks))
        before = network(clips, masks)
        network.trajectories.most = 2
        assert torch.allclose(network(clips, masks), before, atol=1e-5)
    assert present[0].tolist() == [True, True] + [False] * 6 and not tokens.isnan().any()


def test_the_token_of_an_object_does_not_depend_on_its_number(moving: tuple[Tensor, Tensor]) -> None:
    clips, masks = moving
    network = made("oracle")
    with torch.no_grad():
        assert torch.allclose(network(clips, masks), network(clips, masks * 3 + 2), atol=1e-5)
        assert not torch.allclose(network(clips, masks), network(clips, masks.flip(1)), atol=1e-4)


def test_wrong_data_and_settings_are_refused(moving: tuple[Tensor, Tensor]) -> None:
    clips, masks = moving
    with pytest.raises(DataError, match="need masks"):
        made("oracle")(clips)
    with pytest.raises(DataError, match="a clip has 9 trajectories, but the network takes 8"):
        made("oracle")(clips, masks * 8)
    with pytest.raises(DataError, match="do not divide 5 frames"):
        made("patches")(clips[:, :5])
    with pytest.raises(ValueError, match="give one of oracle, tracked, patches"):
        made("sam")


def test_every_parameter_is_trained(moving: tuple[Tensor, Tensor]) -> None:
    batch = TrainingBatch(moving[0], torch.tensor([1]), masks=moving[1])
    for source in ("oracle", "tracked", "patches"):
        network = made(source).train()
        sum(network.loss(batch, 0.0).values()).backward()  # type: ignore[union-attr]
        assert all(parameter.grad is not None for parameter in network.parameters())


TOML = """summary = "small"
prune_kind = "clip"
[model]
classes = 4
source = "{source}"
[model.shape]
width = 8
depth = 1
heads = 2
[training]
data = "sprites-train"
flip = false
images = 8
batch = 8
"""


def test_networks_with_their_own_tokens_are_rows(tmp_path: Path) -> None:
    out, texts = tmp_path / "out", {one: TOML.format(source=one) for one in ("oracle", "tracked", "patches")}
    train_networks(tmp_path, "trajvit", texts, "--limit", 8, datasets=("sprites", "sprites-train"))
    names, given = ["small.oracle", "small.tracked"], ["--root", str(tmp_path)]
    words = ["--model", "small.patches", "--data", "sprites", "--limit", "4", "--batches", "0", "--out", str(out)]
    done = CliRunner().invoke(main, ["prune", *names, *words, *given])
    assert done.exit_code == 0, done.output
    rows = {one.about["method"]: one.rows["whole"] for one in load_all(out, "clip")}
    assert rows.keys() == set(names)
    assert 2 <= rows["small.oracle"].tokens <= rows["small.oracle"].most_tokens <= 5
    assert rows["small.tracked"].most_tokens <= 16
    refused = CliRunner().invoke(main, ["prune", Uniform.title.split()[0], *words, *given])
    assert refused.exit_code == 1 and "no frames whose tokens could be reduced" in refused.output
