"""The training loop: order, budgets, interruptions; and the command around it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from image_files import solid, write_parquet
from safetensors.torch import load_file
from torch import Tensor, nn

from tokbench.data.dataset import Dataset
from tokbench.data.sources.open import open_sources
from tokbench.errors import AdapterError, MissingWeights
from tokbench.nn.trainable import Autoencoder, Trainable, TrainingBatch, TrainingData
from tokbench.protocol.protocol import TOKBENCH
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.data import load_training_data
from tokbench.training.loop import TrainConfig, batches, train
from tokbench.training.zoo import PROFILES, dependencies, load_trained, recipe_of, save_trained, trainable_adapters
from tokbench.weights.shards import LARGEST, shard_paths

PIXELS = torch.randint(0, 256, (40, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
MATERIAL = TrainingData(PIXELS, torch.arange(40))
RECIPE = TrainConfig(images=200, batch=8, rate=1e-2)


class Linear(Trainable):
    """Reconstructs through 4 values, with some noise, so that randomness is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(192, 4), nn.Linear(4, 192)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.seen: list[tuple[float, Tensor]] = []
        self.stop_at: int | None = None

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        if self.stop_at == len(self.seen):
            raise KeyboardInterrupt
        self.seen.append((progress, batch.images))
        self.steps += 1
        flat = batch.images.flatten(1)
        found = self.decode(self.encode(flat) + 0.1 * torch.randn(len(flat), 4))
        return {"pixels": (found - flat).square().mean()}


def made(**fields: object) -> Linear:
    torch.manual_seed(0)
    return Linear()


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_it_learns_and_says_what_it_did() -> None:
    model = made()
    trained = train(model, MATERIAL, RECIPE)
    assert trained.images == 200 and trained.steps == 25
    assert trained.curve["pixels"][-1] < trained.curve["pixels"][0]
    assert model.seen[0][0] == 0 and 0.9 < model.seen[-1][0] < 1
    assert not model.training


def test_every_epoch_shows_every_image_once_in_another_order() -> None:
    recipe = TrainConfig(images=80, batch=8, flip=False)
    stream = batches(MATERIAL, recipe, "cpu")
    epochs = [torch.cat([next(stream).labels for _ in range(5)]) for _ in range(2)]
    assert all(epoch.sort().values.tolist() == list(range(40)) for epoch in epochs)
    assert not torch.equal(*epochs)


def test_images_are_in_range_and_half_of_them_mirrored() -> None:
    stream = batches(MATERIAL, TrainConfig(images=400, batch=40), "cpu")
    mirrored = []
    for _ in range(10):
        batch = next(stream)
        plain = PIXELS[batch.labels].float() / 127.5 - 1
        same, turned = (batch.images == plain).flatten(1).all(1), (batch.images == plain.flip(3)).flatten(1).all(1)
        assert (same ^ turned).all()
        mirrored.append(turned.float().mean())
    assert 0.4 < float(torch.stack(mirrored).mean()) < 0.6


def test_two_models_see_the_same_images_in_the_same_order() -> None:
    one, other = made(), made()
    other.encode = nn.Linear(192, 4)  # another model, with other draws at its making
    train(one, MATERIAL, RECIPE)
    train(other, MATERIAL, RECIPE)
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(one.seen, other.seen, strict=True))


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokbench.training.loop.KEPT", 0.0)
    whole, broken, resumed = made(), made(), made()
    train(whole, MATERIAL, RECIPE)
    broken.stop_at = 13
    with pytest.raises(KeyboardInterrupt):
        train(broken, MATERIAL, RECIPE, state=tmp_path / "state.pt")
    trained = train(resumed, MATERIAL, RECIPE, state=tmp_path / "state.pt")
    assert 0 < len(resumed.seen) < 25
    assert torch.equal(weights(resumed), weights(whole))
    assert int(resumed.steps) == int(whole.steps) == trained.steps == 25


def test_another_seed_gives_other_weights() -> None:
    one, other = made(), made()
    train(one, MATERIAL, RECIPE)
    train(other, MATERIAL, TrainConfig(images=200, batch=8, rate=1e-2, seed=1))
    assert not torch.allclose(weights(one), weights(other))


def test_seconds_are_a_budget_too() -> None:
    trained = train(made(), MATERIAL, TrainConfig(seconds=0.3, batch=8))
    assert 0.3 <= trained.seconds < 3
    assert trained.images == 8 * trained.steps > 8


def test_a_state_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {}}, tmp_path / "state.pt")
    with pytest.raises(AdapterError, match="not a checkpoint of this training"):
        train(made(), MATERIAL, RECIPE, state=tmp_path / "state.pt")


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    with pytest.raises(AdapterError, match="not finite at step 10"):
        train(made(), TrainingData(PIXELS[:8]), TrainConfig(images=200, batch=8, rate=1e30, clip=1e30))


def test_too_few_images_for_a_batch_are_refused() -> None:
    with pytest.raises(AdapterError, match="do not fill a batch of 64"):
        train(made(), MATERIAL, TrainConfig(images=64, batch=64))


class Painter(Autoencoder):
    """Reconstructs images from their mean colour; the perceptual distance is replaced by a count of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.paint = nn.Conv2d(3, 3, 1)

    def ready(self, device: str) -> None:
        self.helpers["perceptual"] = PerceptualCount()

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        blurred = batch.images.mean((2, 3), keepdim=True).expand_as(batch.images)
        return self.compare(self.paint(blurred), batch.images, progress)


class PerceptualCount(nn.Module):
    calls = 0

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        self.calls += 1
        return (image - reference).abs().mean()


def test_the_perceptual_loss_is_used_in_the_second_half_and_helpers_are_not_stored(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Painter()
    trained = train(model, MATERIAL, TrainConfig(images=480, batch=8))
    assert trained.curve.keys() == {"pixels", "perceptual"}
    assert model.helpers["perceptual"].calls == 30  # of 60 steps
    variant = AdapterConfig("x.y", tmp_path / "x", {})
    save_trained(model, variant.file, trained, "data")
    kept = load_file(variant.file)
    assert kept.keys() == {"paint.weight", "paint.bias"}
    assert kept["paint.weight"].dtype == torch.float16
    assert torch.allclose(load_trained(variant, Painter()).paint.weight, model.paint.weight, atol=1e-3)
    record = json.loads(variant.file.with_suffix(".training.json").read_text())
    assert record["images"] == 480 and record["recipe"]["data"] == "data"
    assert record["precision"] in ("float32", "bfloat16") and record["cpu_seconds"] > 0


def test_mirroring_is_independent_of_the_random_numbers_of_the_loss() -> None:
    """With one seed for both, images that are mirrored would always get the smaller uniform numbers in the loss."""

    class Recorder(Trainable):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))
            self.pairs: list[tuple[Tensor, Tensor]] = []

        def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
            left_is_bright = batch.images[..., 0].mean((1, 2)) > batch.images[..., -1].mean((1, 2))
            self.pairs.append((left_is_bright, torch.rand(len(batch.images))))
            return {"weight": self.weight.square()}

    pixels = torch.zeros(16, 3, 8, 8, dtype=torch.uint8)
    pixels[..., -1] = 255  # mirrored images are bright on the left
    model = Recorder()
    train(model, TrainingData(pixels), TrainConfig(images=8000, batch=16))
    mirrored, uniform = (torch.cat(parts) for parts in zip(*model.pairs, strict=True))
    assert 0.45 < float(mirrored.float().mean()) < 0.55
    assert abs(float(uniform[mirrored].mean() - uniform[~mirrored].mean())) < 0.03


def test_a_model_is_started_once_from_images_that_are_not_mirrored(tmp_path: Path) -> None:
    started: list[TrainingBatch] = []

    class Started(Linear):
        def start(self, batch: TrainingBatch) -> None:
            started.append(batch)
            with torch.no_grad():
                self.decode.bias.fill_(7.0)

    torch.manual_seed(0)
    model = Started()
    model.stop_at = 20
    with pytest.raises(KeyboardInterrupt):
        train(model, MATERIAL, RECIPE, state=tmp_path / "state.pt")
    assert len(started) == 1 and float(model.decode.bias.detach().mean()) == pytest.approx(7.0, abs=0.3)
    batch = started[0]
    assert batch.labels is not None and torch.equal(batch.images, PIXELS[batch.labels].float().div(127.5).sub(1))
    assert sorted(batch.labels.tolist()) == list(range(40))


def test_weights_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    trained = train(made(), MATERIAL, RECIPE)
    with pytest.raises(AdapterError, match="make the model smaller"):
        save_trained(nn.Linear(2048, 2048), tmp_path / "x.safetensors", trained, "data")
    assert not list(tmp_path.iterdir())


def test_weights_of_several_files_are_whole_again_and_leave_nothing_behind(tmp_path: Path) -> None:
    trained, target = train(made(), MATERIAL, RECIPE), tmp_path / "x.safetensors"
    save_trained(nn.Linear(8, 8), target, trained, "data")
    assert shard_paths(target) == [target]
    large = nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(3)))
    save_trained(large, target, trained, "data")
    parts = shard_paths(target)
    assert [path.name for path in parts] == [f"x-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    assert not target.exists() and max(path.stat().st_size for path in parts) <= LARGEST
    state: dict[str, torch.Tensor] = {}
    for path in parts:
        state |= load_file(path)
    assert state.keys() == large.state_dict().keys()
    assert all(torch.equal(state[name], value.half()) for name, value in large.state_dict().items())
    parts[1].unlink()
    with pytest.raises(MissingWeights, match="has 2 weight files, but their names state a total of 3"):
        shard_paths(target)
    save_trained(nn.Linear(8, 8), target, trained, "data")
    assert shard_paths(target) == [target] and len(list(tmp_path.glob("*.safetensors"))) == 1


def test_a_recipe_with_an_unknown_field_names_it(tmp_path: Path) -> None:
    variant = AdapterConfig("x.y", tmp_path, {"training": {"rates": 1}})
    with pytest.raises(AdapterError, match="rates"):
        recipe_of(variant, "cpu", {})
    changed = recipe_of(AdapterConfig("x.y", tmp_path, {"training": {"gpu": {"batch": 7}}}), "gpu", {"seconds": 5.0})
    assert (changed.batch, changed.images, changed.seconds) == (7, None, 5.0)
    assert recipe_of(AdapterConfig("x.y", tmp_path, {"training": {}}), "cpu", {}) == PROFILES["cpu"]
    quarter = AdapterConfig("x.y", tmp_path, {"training": {"part": 0.25}})
    assert recipe_of(quarter, "cpu", {}).images == 24_000
    assert recipe_of(quarter, "gpu", {"images": 800}).images == 200
    assert recipe_of(quarter, "cpu", {"seconds": 8.0}).seconds == 2
    with pytest.raises(AdapterError, match="part must be above 0"):
        recipe_of(AdapterConfig("x.y", tmp_path, {"training": {"part": 0}}), "cpu", {})
    timed = recipe_of(AdapterConfig("x.y", tmp_path, {"training": {"images": 9, "cpu": {"seconds": 5.0}}}), "cpu", {})
    assert (timed.images, timed.seconds) == (None, 5.0)
    with pytest.raises(AdapterError, match="images or seconds, not both"):
        recipe_of(AdapterConfig("x.y", tmp_path, {"training": {"images": 9, "seconds": 5.0}}), "cpu", {})


def test_images_and_labels_are_sorted_by_name(tmp_path: Path) -> None:
    """Written in another order, and into two files, they are the same material."""

    def files(folder: Path, order: list[int], parts: int) -> Path:
        for part in range(parts):
            mine = order[part::parts]
            rows = [{"bytes": solid(20 * number), "path": f"{number}.png"} for number in mine]
            write_parquet(folder / f"{part}.parquet", rows, [100 + number for number in mine])
        return folder

    given = [files(tmp_path / "a", [3, 1, 4, 0, 2], 1), files(tmp_path / "b", [0, 4, 2, 1, 3], 2)]
    one, other = (
        load_training_data(Dataset("x", open_sources(sorted(path.iterdir())), TOKBENCH, None)) for path in given
    )
    assert one.labels is not None
    assert one.labels.tolist() == [100, 101, 102, 103, 104]
    assert one.pixels[:, 0, 0, 0].tolist() == [0, 20, 40, 60, 80]
    assert one.sha256 == other.sha256
    assert one.sha256 != TrainingData(one.pixels).sha256


def test_what_others_are_built_on_comes_first() -> None:
    order = list(trainable_adapters())
    assert order.index("vqgan.f8") < order.index("karl.n32")
    assert order.index("kl.f8c16") < order.index("flextok.n16")
    assert order.index("teacher.small") < order.index("gigatok.n32")
    assert dependencies()["robustok.p8_post"] >= {"gpt.robustok_p8", "robustok.p8"}  # one through the other
