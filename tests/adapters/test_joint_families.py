"""Families that are trained on several kinds of data at once: what each kind goes through, and a training."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from checkout import ROOT
from factories import run_eval

from tokbench.analysis.ablations import ablations
from tokbench.modalities.open import open_dataset
from tokbench.nn.losses import gram_distance
from tokbench.nn.trainable import TrainingBatch, TrainingData
from tokbench.protocol.protocol import TOKBENCH, Video
from tokbench.tokenizers.registry import adapter_files, load_adapter, open_variant
from tokbench.training.zoo import TrainOptions, train_adapter, untrained

FILES = {name: toml for name, toml in adapter_files(ROOT).items() if name.startswith("atoken.")}
SHORT = TOKBENCH.with_changes("short", video=Video(frames=6))


def made(name: str = "atoken.joint") -> Any:
    """The untrained model of a row, without the perceptual loss and its network."""
    model: Any = untrained(*open_variant(name, FILES[name]), 0)
    model.perceptual = 0.0
    return model


@pytest.fixture(scope="module")
def voxels() -> torch.Tensor:
    """Two shapes (2, 4, 16, 16, 16) with one and with no occupied patch of eight."""
    grid = torch.full((2, 4, 16, 16, 16), -1.0)
    grid[0, :, 9:13, 2:5, 3] = 1.0
    return grid


def test_rows_differ_in_what_they_are_trained_on() -> None:
    models = {name: made(name) for name in FILES}
    assert {name: model.modalities for name, model in models.items()} == {
        "atoken.image": ("image",),
        "atoken.image_nogram": ("image",),
        "atoken.image_video": ("image", "video"),
        "atoken.joint": ("image", "video", "shape"),
    }
    shared = [
        {key: value for key, value in model.state_dict().items() if "shape" not in key} for model in models.values()
    ]
    assert all(one.keys() == shared[0].keys() for one in shared)
    assert all(sum(p.numel() for p in model.parameters()) < 1_250_000 for model in models.values())
    assert {one.of for one in ablations(FILES)} | {one.ablated for one in ablations(FILES)} == FILES.keys()


@pytest.mark.parametrize("shape", [(1, 8, 3, 16, 24), (2, 4, 3, 8, 8)])
def test_patches_of_clips_are_cut_and_pasted(shape: tuple[int, ...]) -> None:
    module = open_variant("atoken.joint", FILES["atoken.joint"])[1]
    clips = torch.randn(shape)
    patches = module.cut_clips(clips)
    assert torch.equal(module.paste_clips(patches), clips)
    first = patches[0, 0, 0, 0].reshape(4, 3, 8, 8)
    assert torch.equal(first, clips[0, :4, :, :8, :8])


def test_coordinates_are_time_and_place() -> None:
    module = open_variant("atoken.joint", FILES["atoken.joint"])[1]
    where = {
        kind: module.coordinates(kind, position, torch.device("cpu"))[-1].tolist()
        for kind, position in (("image", (2, 3)), ("video", (4, 2, 3)), ("shape", (2, 3, 4)))
    }
    assert where == {"image": [0, 2, 1, 0], "video": [3, 2, 1, 0], "shape": [0, 1, 2, 3]}


def test_every_kind_has_its_own_form_of_latents(voxels: torch.Tensor) -> None:
    model = made().eval()
    clips = torch.randn(2, 8, 3, 16, 24).clamp(-1, 1)
    with torch.no_grad():
        for items, position in ((clips[:, 0], (2, 3)), (clips, (2, 2, 3)), (voxels, (1, 2, 2, 2))):
            vectors, _ = model.squeeze(model.latents(items))
            assert vectors.shape == (2, *position, 16)
            assert model.pixels(vectors).shape == items.shape


def test_empty_patches_are_left_out(voxels: torch.Tensor) -> None:
    model = made().eval()
    with torch.no_grad():
        vectors, _ = model.squeeze(model.latents(voxels))
        assert (vectors != 0).any(-1).flatten(1).nonzero().tolist() == [[0, 4]]  # the patch (1, 0, 0) of the first
        torch.nn.init.constant_(model.heads["shape"].bias, 3.0)
        decoded = model.pixels(vectors)
        alone = model.pixels(vectors[:1])
    occupied = decoded[:, 0] > 0
    assert occupied[0, 8:, :8, :8].all() and int(occupied.sum()) == 8**3
    assert (decoded[:, 1:].movedim(1, -1)[~occupied] == -1).all()
    assert torch.allclose(decoded[:1], alone, atol=1e-6)


def test_the_gram_loss_ignores_where_features_are() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 5, 4, 4)
    moved = features.flatten(2)[:, :, torch.randperm(16)].unflatten(2, (4, 4))
    assert float(gram_distance([features], [moved])) == pytest.approx(0, abs=1e-10)
    first, second = torch.zeros(1, 2, 1, 2), torch.zeros(1, 2, 1, 2)
    first[0, 0], second[0, 1] = 2.0, 3.0  # of unit length: one everywhere in the first or in the second value
    assert float(gram_distance([first], [second])) == pytest.approx(2.0)


def test_images_have_the_same_loss_in_all_rows() -> None:
    batch = TrainingBatch(torch.rand(2, 3, 32, 32) * 2 - 1)
    pixels = []
    for name in ("atoken.image", "atoken.joint"):
        model = made(name).train()
        for key, value in model.named_parameters():  # rows with more layers have drawn other initial weights
            torch.nn.init.normal_(value, std=0.02, generator=torch.Generator().manual_seed(len(key)))
        torch.manual_seed(1)
        pixels.append(float(model.loss(batch, 0.0)["pixels"].detach()))
    assert pixels[0] == pixels[1]


def test_one_network_is_trained_and_evaluated_on_three_kinds_of_data(tmp_path: Path) -> None:
    folder = tmp_path / "adapters" / "atoken"
    shutil.copytree(ROOT / "adapters" / "atoken", folder, ignore=shutil.ignore_patterns("*.safetensors", "*.json"))
    coarse = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    pixels = torch.nn.functional.interpolate(coarse, 32, mode="bicubic").clamp(0, 1).mul(255).to(torch.uint8)
    data = TrainingData(pixels)
    options = TrainOptions("eight images", changes={"images": 40, "batch": 2, "rate": 3e-3, "average": 0.5})
    _, record = train_adapter("atoken.joint", folder / "joint.toml", data, options)
    kinds = {"pixels", "perceptual", "gram", "bottleneck", "clips", "occupancy", "colour"}
    assert kinds | {"clips divergence", "shapes divergence"} == set(record.curve)

    adapter: Any = load_adapter("atoken.joint", root=tmp_path)
    images = data.values(torch.arange(8), "cpu")
    clips, shapes = images[None, :4], open_dataset("solids", SHORT, None, 2)
    for model in (before := made().eval(), after := adapter.model.model):
        model.perceptual = 0.0
    (batch,) = shapes.batches(2)
    with torch.inference_mode():
        for items in (images, clips, batch.reference * 2 - 1):
            errors = [float((model.pixels(model.squeeze(model.latents(items))[0]) - items).square().mean())
                      for model in (before, after)]  # fmt: skip
            assert errors[1] < 0.8 * errors[0]
    (result,) = run_eval([adapter], shapes, ("shape_rate", "iou"))
    assert result.metrics["tokens_per_shape"]["value"] == 64
    (result,) = run_eval([adapter], open_dataset("sprites", SHORT, None, 2), ("clip_rate", "frame_psnr"))
    assert result.metrics["tokens_per_clip"]["value"] == 2 * 64
    assert adapter.model.spec.temporal == 4
