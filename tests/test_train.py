"""The training loop: order, budgets, interruptions; and the command around it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

from tokbench.cli import main
from tokbench.errors import AdapterError
from tokbench.nn.trainable import Examples, Trainable
from tokbench.train import Material, Recipe, batches, train
from tokbench.training import PROFILES, keep, recipe_of, trainees
from tokbench.variant import Variant

PIXELS = torch.randint(0, 256, (40, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
MATERIAL = Material(PIXELS, torch.arange(40))
RECIPE = Recipe(images=200, batch=8, rate=1e-2)


class Linear(Trainable):
    """Reconstructs through 4 values, with some noise, so that randomness is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(192, 4), nn.Linear(4, 192)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.seen: list[tuple[float, Tensor]] = []
        self.stop_at: int | None = None

    def loss(self, batch: Examples, progress: float) -> dict[str, Tensor]:
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
    told = train(model, MATERIAL, RECIPE)
    assert told.images == 200 and told.steps == 25
    assert told.curve["pixels"][-1] < told.curve["pixels"][0]
    assert model.seen[0][0] == 0 and 0.9 < model.seen[-1][0] < 1
    assert not model.training


def test_every_epoch_shows_every_image_once_in_another_order() -> None:
    recipe = Recipe(images=80, batch=8, flip=False)
    stream = batches(MATERIAL, recipe, "cpu")
    epochs = [torch.cat([next(stream).labels for _ in range(5)]) for _ in range(2)]
    assert all(epoch.sort().values.tolist() == list(range(40)) for epoch in epochs)
    assert not torch.equal(*epochs)


def test_images_are_in_range_and_half_of_them_mirrored() -> None:
    stream = batches(MATERIAL, Recipe(images=400, batch=40), "cpu")
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
    monkeypatch.setattr("tokbench.train.KEPT", 0.0)
    whole, broken, resumed = made(), made(), made()
    train(whole, MATERIAL, RECIPE)
    broken.stop_at = 13
    with pytest.raises(KeyboardInterrupt):
        train(broken, MATERIAL, RECIPE, state=tmp_path / "state.pt")
    told = train(resumed, MATERIAL, RECIPE, state=tmp_path / "state.pt")
    assert 0 < len(resumed.seen) < 25
    assert torch.equal(weights(resumed), weights(whole))
    assert int(resumed.steps) == int(whole.steps) == told.steps == 25


def test_another_seed_gives_other_weights() -> None:
    one, other = made(), made()
    train(one, MATERIAL, RECIPE)
    train(other, MATERIAL, Recipe(images=200, batch=8, rate=1e-2, seed=1))
    assert not torch.allclose(weights(one), weights(other))


def test_seconds_are_a_budget_too() -> None:
    told = train(made(), MATERIAL, Recipe(seconds=0.3, batch=8))
    assert 0.3 <= told.seconds < 3
    assert told.images == 8 * told.steps > 8


def test_a_state_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {}}, tmp_path / "state.pt")
    with pytest.raises(AdapterError, match="not a state of this training"):
        train(made(), MATERIAL, RECIPE, state=tmp_path / "state.pt")


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    with pytest.raises(AdapterError, match="not finite at step 10"):
        train(made(), Material(PIXELS[:8]), Recipe(images=200, batch=8, rate=1e30, clip=1e30))


def test_too_few_images_for_a_batch_are_refused() -> None:
    with pytest.raises(AdapterError, match="do not fill a batch of 64"):
        train(made(), MATERIAL, Recipe(images=64, batch=64))


class Adversarial(Linear):
    """With a critic that is one number, to see that each optimiser moves its own."""

    def ready(self, device: str, adversary: float) -> None:
        if adversary:
            self.critic = nn.Linear(192, 1)

    def loss(self, batch: Examples, progress: float) -> dict[str, Tensor]:
        terms = super().loss(batch, progress)
        if self.critic:
            terms["adversary"] = -self.critic(self.decode.bias).mean()
        return terms

    def critic_loss(self) -> Tensor:
        return (self.critic.bias - 1).square().sum()


def test_the_critic_learns_by_its_own_loss(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Adversarial()
    told = train(model, MATERIAL, Recipe(images=1600, batch=8, adversary=1.0, critic_rate=3e-2, average=0.5))
    assert float(model.critic.bias) == pytest.approx(1, abs=0.1)
    assert {"pixels", "adversary", "critic"} <= told.curve.keys()
    keep(model, tmp_path / "x.safetensors", told, "data")
    from safetensors.torch import load_file

    kept = load_file(tmp_path / "x.safetensors")
    assert not any(key.startswith("critic") for key in kept)
    assert kept["encode.weight"].dtype == torch.float16
    record = json.loads((tmp_path / "x.training.json").read_text())
    assert record["images"] == 1600 and record["recipe"]["data"] == "data"


def test_weights_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    told = train(made(), MATERIAL, RECIPE)
    with pytest.raises(AdapterError, match="make the model smaller"):
        keep(nn.Linear(2048, 2048), tmp_path / "x.safetensors", told, "data")
    assert not list(tmp_path.iterdir())


def test_a_recipe_with_an_unknown_field_names_it(tmp_path: Path) -> None:
    variant = Variant("x.y", tmp_path, {"training": {"rates": 1}})
    with pytest.raises(AdapterError, match="rates"):
        recipe_of(variant, "cpu", {})
    changed = recipe_of(Variant("x.y", tmp_path, {"training": {"gpu": {"batch": 7}}}), "gpu", {"seconds": 5.0})
    assert (changed.batch, changed.images, changed.seconds) == (7, None, 5.0)
    assert recipe_of(Variant("x.y", tmp_path, {"training": {}}), "cpu", {}) == PROFILES["cpu"]


def test_what_others_are_built_on_comes_first() -> None:
    order = list(trainees())
    assert order.index("vqgan.f8") < order.index("karl.n32")
    assert order.index("kl.f8c16") < order.index("flextok.n16")
    assert order.index("teacher.small") < order.index("gigatok.n32")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one small adapter that can be trained, one that is built on it, and some images."""
    folder = tmp_path / "adapters" / "mini"
    folder.mkdir(parents=True)
    source = Path(__file__).parent.parent / "adapters" / "pca" / "adapter.py"
    (folder / "adapter.py").write_text(source.read_text())
    (folder / "c4.toml").write_text('summary = "x"\n[model]\ncomponents = 4\n[training]\n')
    images = tmp_path / "photos"
    images.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(images / f"{i}.png")
    return tmp_path


def test_the_command_trains_and_the_adapter_runs(root: Path) -> None:
    run = CliRunner().invoke(main, ["train", "mini.c4", "--root", str(root), "--data", str(root / "photos")])
    assert run.exit_code == 0, run.output
    assert (root / "adapters/mini/c4.safetensors").is_file()
    assert "wrote" in run.stderr
    command = ["eval", "mini.c4", "--root", str(root), "--data", str(root / "photos"), "--metrics", "psnr"]
    run = CliRunner().invoke(main, [*command, "--out", str(root / "results"), "--no-cache"])
    assert run.exit_code == 0, run.output


def test_an_untrained_adapter_says_how_to_train_it(root: Path) -> None:
    run = CliRunner().invoke(main, ["list", "adapters", "--root", str(root)])
    assert "x (not trained yet)" in run.stdout
    command = ["eval", "mini.c4", "--root", str(root), "--data", str(root / "photos"), "--metrics", "psnr"]
    run = CliRunner().invoke(main, [*command, "--out", str(root / "results")])
    assert run.exit_code == 1
    assert "tokbench train mini.c4" in run.stderr


@pytest.mark.parametrize(
    "arguments, told",
    [
        ([], "name adapters to train, or give --all"),
        (["mini.c9"], "cannot train mini.c9; there are: mini.c4"),
        (["mini.c4", "--budget", "9 minutes"], "give seconds or images"),
    ],
)
def test_wrong_usage_says_what_is_wrong(root: Path, arguments: list[str], told: str) -> None:
    run = CliRunner().invoke(main, ["train", *arguments, "--root", str(root), "--data", str(root / "photos")])
    assert run.exit_code == 2
    assert told in run.stderr
