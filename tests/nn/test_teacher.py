"""Features of the frozen teacher: computed once, on the grid of the tokens, mirrored with their images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tokbench.nn.teacher import CHANNELS, SemanticTeacher
from tokbench.nn.trainable import Trainable, TrainingBatch, TrainingData
from tokbench.training.loop import TrainConfig, train


@pytest.fixture(scope="module")
def data() -> TrainingData:
    """Smooth random images (24, 3, 32, 32)."""
    coarse = torch.rand(24, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    pixels = nn.functional.interpolate(coarse, size=32, mode="bicubic").clamp(0, 1).mul(255).to(torch.uint8)
    return TrainingData(pixels, torch.arange(24))


def nothing(done: int, total: int) -> None:
    pass


def test_features_are_centred_components_on_the_grid(data: TrainingData, private_cache: Path) -> None:
    features = SemanticTeacher(4, 8).features_of(data, "cpu", nothing).features
    assert features is not None and features.shape == (24, 16, 8) and features.dtype == torch.float16
    rows = features.flatten(0, 1).float()
    assert torch.allclose(rows.mean(0), torch.zeros(8), atol=2e-2)
    variances = rows.var(0)
    assert (variances[:-1] >= variances[1:] * 0.99).all()
    off_diagonal = torch.corrcoef(rows.T) - torch.eye(8)
    assert float(off_diagonal.abs().max()) < 0.02


def test_a_position_of_the_grid_sees_its_part_of_the_image(data: TrainingData) -> None:
    teacher = SemanticTeacher(4, 8)
    teacher.prepare("cpu")
    teacher.fit(data.pixels, "cpu")
    images = torch.full((2, 3, 32, 32), 0.5)
    images[1, :, :8, 24:] = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        plain, changed = teacher(images)
    changes = (plain - changed).norm(dim=1).unflatten(0, (4, 4))
    near, far = changes[:2, 2:].mean(), changes[2:, :2].mean()
    assert float(near) > 3 * float(far)  # the upper right of the grid, where the image changed, and the lower left


def test_features_are_computed_once(data: TrainingData, private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    forward = SemanticTeacher.forward
    monkeypatch.setattr(SemanticTeacher, "forward", lambda self, images: calls.append(1) or forward(self, images))
    first = SemanticTeacher(4, 8).features_of(data, "cpu", nothing).features
    assert calls
    calls.clear()
    again = SemanticTeacher(4, 8).features_of(data, "cpu", nothing).features
    assert not calls and first is not None and again is not None and torch.equal(first, again)
    SemanticTeacher(2, 8).features_of(data, "cpu", nothing)
    assert calls  # another grid is another entry


def test_more_values_than_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=f"{CHANNELS} channels, so dim cannot be 200"):
        SemanticTeacher(4, 200)


def test_features_are_mirrored_with_their_images(data: TrainingData) -> None:
    columns = torch.arange(4.0).repeat(4)[None, :, None].expand(24, -1, 1)  # each position holds its column
    marked = TrainingData(data.pixels, data.labels, features=columns.half())
    seen: list[tuple[Tensor, Tensor]] = []

    class Recorder(Trainable):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
            assert batch.labels is not None and batch.features is not None
            originals = data.pixels[batch.labels].float().div(127.5).sub(1)
            mirrored = (batch.images != originals).flatten(1).any(1)
            seen.append((mirrored, batch.features[:, 0, 0]))
            return {"weight": self.weight.square()}

    train(Recorder(), marked, TrainConfig(images=96, batch=8))
    mirrored, first = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert 0 < int(mirrored.sum()) < len(mirrored)
    assert torch.equal(first, torch.where(mirrored, 3.0, 0.0))
