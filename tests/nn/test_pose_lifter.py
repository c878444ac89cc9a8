"""Skeletons whose bones keep their lengths, and pose lifters that remove and recover frames."""

from __future__ import annotations

import math
import tomllib

import pytest
import torch
from checkout import ROOT
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tokbench.errors import AdapterError
from tokbench.nn.pose_lifter import PoseLifter, interpolated, joint_errors, peak_scores
from tokbench.nn.skeleton import BONES, JOINTS, NOISE, PARENTS, SEEDS, _forward_kinematics, draw_sequences
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import Block
from tokbench.pruning.pose.sequences import FIRST_SEED, SEQUENCES

FRAMES = 13


def made(counts: list[int], select: str = "uniform", recover: str = "interpolate") -> PoseLifter:
    torch.manual_seed(0)
    lifter = PoseLifter(FRAMES, counts, select, recover, width=16, heads=2)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in lifter.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return lifter.eval()


@pytest.fixture(scope="module")
def drawn() -> tuple[Tensor, Tensor]:
    return draw_sequences(range(40, 44), FRAMES)


def test_bones_keep_their_lengths_and_joints_move(drawn: tuple[Tensor, Tensor]) -> None:
    poses = drawn[1]
    lengths = (poses - poses[:, :, list(PARENTS)]).norm(dim=-1)[:, :, 1:]
    assert torch.allclose(lengths, torch.tensor(BONES).norm(dim=1)[1:].expand_as(lengths), atol=1e-5)
    assert (poses[:, 1:] - poses[:, :-1]).norm(dim=-1)[..., 1:].mean() > 0.01
    assert not poses[:, :, 0].any()


def test_a_sequence_depends_on_its_seed_only(drawn: tuple[Tensor, Tensor]) -> None:
    for whole, alone in zip(drawn, draw_sequences([42], FRAMES), strict=True):
        assert torch.allclose(whole[2:3], alone, atol=1e-6)


def test_frames_of_the_networks_stay_evenly_spaced_in_several_steps() -> None:
    """With other numbers of frames, the gaps would alternate, and interpolation would decide the comparison."""
    means = set[float]()
    for name in ("tps", "tps_hier"):
        given = tomllib.loads((ROOT / "adapters" / "h2ot" / f"{name}.toml").read_text())["model"]
        lifter, frames = PoseLifter(**given), torch.arange(given["frames"])
        for number, count in enumerate(lifter.counts):
            frames = frames[lifter.chosen(torch.zeros(1, len(frames), JOINTS, 1), count, number)[0]]
        gaps = frames.diff()
        assert frames[0] == 0 and frames[-1] == 80 and gaps.max() <= 1.5 * gaps.min()
        means.add(sum(lifter.counts) / len(lifter.counts))
    assert means == {40.5}


def test_test_sequences_are_not_those_of_the_training() -> None:
    """torch ignores the upper 32 bits of a seed, so that a large seed would give a sequence of the training."""
    batch, asked = TrainingBatch(torch.zeros(64, 3, 8, 8)), list[int]()
    with pytest.MonkeyPatch.context() as patch:

        def record(seeds: list[int], frames: int) -> tuple[Tensor, Tensor]:
            asked.extend(seeds)
            return draw_sequences(seeds, frames)

        patch.setattr("tokbench.nn.pose_lifter.draw_sequences", record)
        made([3]).loss(batch, 0.0)
    assert max(asked) < FIRST_SEED <= FIRST_SEED + SEQUENCES < SEEDS
    assert not torch.equal(draw_sequences([FIRST_SEED], FRAMES)[1], draw_sequences([0], FRAMES)[1])
    for seed in (-1, SEEDS, 1 << 40):
        with pytest.raises(ValueError, match="give seeds from 0 to 4294967295"):
            draw_sequences([seed], FRAMES)


def test_points_are_projections_with_noise(drawn: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise, every joint of a sequence is seen from the same distance between 4 and 6."""
    points, poses = drawn
    assert points[:, :, 0].std().item() == pytest.approx(NOISE, rel=0.3)
    monkeypatch.setattr("tokbench.nn.skeleton.NOISE", 0)
    exact = draw_sequences(range(40, 44), FRAMES)[0]
    for axis in (0, 1):
        distance = 2 * poses[:, :, 10, axis] / exact[:, :, 10, axis] - poses[:, :, 10, 2]
        assert torch.allclose(distance, distance[:, :1].expand_as(distance), atol=1e-3)
        assert distance.min() >= 4 and distance.max() <= 6
    assert (points - exact).std().item() == pytest.approx(NOISE, rel=0.05)


def test_a_joint_turns_the_bones_below_it_and_the_camera_turns_all() -> None:
    """The left arm is lifted to the side (about z), and its elbow is then bent about the axis x of the lifted arm."""
    local = torch.eye(3).repeat(1, 1, JOINTS, 1, 1)
    local[0, 0, 11] = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    local[0, 0, 12] = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    front = _forward_kinematics(local, torch.tensor([[0, 0.5, 0.5, 0]]), torch.zeros(1))[0, 0]
    shoulder = torch.tensor([0.16, 0.49, 0])
    elbow, wrist = shoulder + torch.tensor([0.28, 0, 0]), shoulder + torch.tensor([0.28, 0, -0.25])
    torch.testing.assert_close(front[11:14], torch.stack([shoulder, elbow, wrist]), atol=1e-6, rtol=0)
    torch.testing.assert_close(front[6], torch.tensor([0.13, -0.89, 0]), atol=1e-6, rtol=0)
    side = _forward_kinematics(local, torch.tensor([[0.25, 0.5, 0.5, 0]]), torch.zeros(1))[0, 0]  # a quarter turn
    torch.testing.assert_close(side, front @ torch.tensor([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]]), atol=1e-6, rtol=0)


def test_motion_is_as_slow_as_the_card_states() -> None:
    poses = draw_sequences(range(FIRST_SEED, FIRST_SEED + 40), 81)[1]
    kept = torch.linspace(0, 80, 27).round().long()
    errors = joint_errors(interpolated(poses[:, kept], kept.expand(40, -1), 81), poses)
    assert errors.mean().item() == pytest.approx(0.00505, rel=0.1)


def test_interpolation_is_exact_for_straight_paths_at_uneven_places() -> None:
    path = torch.arange(FRAMES).float()[None, :, None, None] * torch.randn(1, 1, JOINTS, 3) + torch.randn(JOINTS, 3)
    kept = torch.tensor([[0, 1, 5, 6, 12]])
    assert torch.allclose(interpolated(path[:, kept[0]], kept, FRAMES), path, atol=1e-4)


def test_centres_of_clusters_are_kept() -> None:
    """Three groups of frames: each has one of the three highest scores."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(3, 8) * 5
    frames = centres.repeat_interleave(4, 0) + 0.05 * torch.randn(12, 8, generator=generator)
    best = peak_scores(frames[None]).topk(3, dim=1).indices[0]
    assert sorted((best // 4).tolist()) == [0, 1, 2]


def test_scores_of_centres_are_density_times_distance() -> None:
    frames = torch.randn(9, 4, generator=torch.Generator().manual_seed(2))
    apart = [[(one - other).norm().item() / 2 for other in frames] for one in frames]
    near = [sorted(row)[1:3] for row in apart]
    density = [math.exp(-(first**2 + second**2) / 2) for first, second in near]
    expected = [
        own * min((row[other] for other in range(9) if density[other] > own), default=max(row))
        for own, row in zip(density, apart, strict=True)
    ]
    torch.testing.assert_close(peak_scores(frames[None])[0], torch.tensor(expected), atol=1e-4, rtol=0)


def test_frames_that_receive_most_attention_are_kept() -> None:
    lifter = made([13, 6], "attention", "attend")
    x = torch.randn(2, FRAMES, JOINTS, 16)
    block = lifter.temporal[0]
    assert isinstance(block, Block)
    for place, frames in enumerate(x.mean(2)):
        received = torch.zeros(FRAMES)
        for head in range(2):
            own = slice(8 * head, 8 * head + 8)
            query, key = (
                layer(block.norm(frames))[:, own] for layer in (block.attention.query, block.attention.key_value)
            )
            received += (query @ key.T / 8**0.5).softmax(1).sum(0)  # of one query over all frames, then of all queries
        best = sorted(received.argsort(descending=True)[:6].tolist())
        assert lifter.chosen(x, 6, 1)[place].tolist() == best


@pytest.mark.parametrize(
    "select, recover", [("uniform", "interpolate"), ("cluster", "attend"), ("attention", "attend")]
)
def test_sequences_do_not_influence_each_other(select: str, recover: str, drawn: tuple[Tensor, Tensor]) -> None:
    lifter, points = made([13, 7, 4], select, recover), drawn[0]
    together = lifter(points)
    for place in range(len(points)):
        torch.testing.assert_close(lifter(points[place : place + 1])[0], together[place], atol=1e-5, rtol=1e-4)


def test_poses_are_interpolated_between_the_frames_they_belong_to(
    drawn: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = list[Tensor]()

    def record(poses: Tensor, places: Tensor, frames: int) -> Tensor:
        kept.append(places)
        return interpolated(poses, places, frames)

    monkeypatch.setattr("tokbench.nn.pose_lifter.interpolated", record)
    made([13, 7, 4])(drawn[0])
    assert kept[0].tolist() == [[0, 4, 8, 12]] * 4


@pytest.mark.parametrize(
    "counts, select, recover",
    [
        ([13, 13], "uniform", "interpolate"),
        ([5, 5], "uniform", "interpolate"),
        ([13, 7, 4], "uniform", "attend"),
        ([13, 7, 4], "cluster", "attend"),
        ([13, 5], "attention", "attend"),
    ],
)
def test_the_formula_counts_the_operations(counts: list[int], select: str, recover: str) -> None:
    lifter, (points, _) = made(counts, select, recover), draw_sequences([1], FRAMES)
    with torch.no_grad(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        assert lifter(points).shape == (1, FRAMES, JOINTS, 3)
    chosen = 0
    if select == "attention":  # one query and key per frame, and their products: choosing counts as 0
        chosen = 2 * 3 * FRAMES * lifter.width**2 + 2 * FRAMES**2 * lifter.width
    assert lifter.flops() + chosen == counter.get_total_flops()


def test_frames_that_are_not_kept_do_not_matter_before_the_first_block(drawn: tuple[Tensor, Tensor]) -> None:
    lifter, points = made([5, 5]), drawn[0]
    other = points.clone()
    other[:, 1:3] += 1
    assert torch.equal(lifter(points), lifter(other))
    assert not torch.allclose(made([13, 5])(points), made([13, 5])(other))


@pytest.mark.parametrize("select", ["cluster", "attention"])
def test_chosen_frames_are_sorted_and_differ(select: str, drawn: tuple[Tensor, Tensor]) -> None:
    lifter = made([13, 6], select, "attend")
    chosen = lifter.chosen(torch.randn(4, FRAMES, JOINTS, 16), 6, 1)
    assert chosen.shape == (4, 6)
    assert (chosen.diff(dim=1) > 0).all()


def test_the_loss_is_the_error_of_drawn_sequences_and_reaches_all_parts() -> None:
    lifter = made([13, 7, 4], "cluster", "attend").train()
    batch = TrainingBatch(torch.zeros(3, 3, 8, 8))
    torch.manual_seed(5)
    (loss,) = lifter.loss(batch, 0.0).values()
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in lifter.parameters())
    torch.manual_seed(5)
    assert torch.equal(lifter.loss(batch, 0.0)["mpjpe"], loss)
    assert joint_errors(torch.zeros(1, 2, JOINTS, 3), torch.full((1, 2, JOINTS, 3), 2.0)).item() == pytest.approx(
        math.sqrt(12)
    )


@pytest.mark.parametrize(
    "counts, select, recover, message",
    [
        ([13, 14], "uniform", "interpolate", "none increasing"),
        ([], "uniform", "interpolate", "give one for each block"),
        ([13, 7], "cluster", "interpolate", "only select = 'uniform'"),
        ([7, 7], "attention", "attend", "before the first block"),
        ([13, 2], "uniform", "interpolate", "must be 3 or more"),
        ([13], "best", "attend", "select = 'best'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(counts: list[int], select: str, recover: str, message: str) -> None:
    with pytest.raises(AdapterError, match=message):
        made(counts, select, recover)
