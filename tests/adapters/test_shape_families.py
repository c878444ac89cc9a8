"""Families that are trained on shapes: their rows, their losses, and a training of a few steps."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from checkout import ROOT
from factories import run_eval

from tokbench.analysis.ablations import ablations
from tokbench.modalities.open import open_dataset
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch, TrainingData
from tokbench.protocol.protocol import TOKBENCH
from tokbench.tokenizers.registry import adapter_files, load_adapter, open_variant
from tokbench.training.data import load_training_data
from tokbench.training.zoo import TrainOptions, train_adapter, untrained

FILES = {name: toml for name, toml in adapter_files(ROOT).items() if name.startswith("vat3d.")}


@pytest.fixture(scope="module")
def shapes() -> TrainingData:
    return load_training_data(open_dataset("solids-train", TOKBENCH, None, 8))


@pytest.fixture(scope="module")
def batch(shapes: TrainingData) -> TrainingBatch:
    return TrainingBatch(shapes.values(torch.arange(4), "cpu"))


@pytest.mark.parametrize("name", FILES)
def test_rows_have_the_same_bytes_and_few_parameters(name: str) -> None:
    model = untrained(*open_variant(name, FILES[name]), 0)
    spec = LearnedTokenizer(name, model, prefixes=True).spec
    assert spec.modalities == ("shape",)
    assert (spec.num_tokens, spec.bits_per_token, spec.size) == (63, 8.0, 32)
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_200_000


def test_ablations_are_of_the_full_row() -> None:
    assert {(one.ablated, one.of) for one in ablations(FILES)} == {
        ("vat3d.b63_flat", "vat3d.b63"),
        ("vat3d.b63_plain", "vat3d.b63"),
    }


def test_shapes_are_read_as_levels(shapes: TrainingData) -> None:
    assert shapes.pixels.shape == (8, 4, 32, 32, 32) and shapes.pixels.dtype == torch.uint8
    assert not shapes.has_images


def test_half_of_the_points_are_near_the_surface() -> None:
    variant = open_variant("vat3d.b63", FILES["vat3d.b63"])[1]
    occupied = torch.zeros(2, 1, 16, 16, 16, dtype=torch.bool)
    occupied[0, 0, 8, 8, 8] = True  # and nothing in the second grid
    torch.manual_seed(0)
    points = variant.near_and_far(occupied, 4000)
    place = torch.stack([points // 256, points // 16 % 16, points % 16])
    near = ((place - 8).abs() <= 1).all(0).float().mean(1)
    assert abs(float(near[0]) - 0.5 - 0.5 * 27 / 4096) < 0.03
    assert float(near[1]) < 0.02


def test_noise_is_drawn_in_training_only_and_only_by_the_variational_rows(batch: TrainingBatch) -> None:
    for name, variational in (("vat3d.b63", True), ("vat3d.b63_plain", False)):
        model = untrained(*open_variant(name, FILES[name]), 0)
        with torch.no_grad():
            assert (model.train().loss(batch, 0.5)["divergence"] > 0) == variational
            assert torch.equal(model.encoded(batch.images), model.encoded(batch.images)) != variational
            model.eval()
            assert torch.equal(model.encoded(batch.images), model.encoded(batch.images))


def test_every_parameter_learns(batch: TrainingBatch) -> None:
    model = untrained(*open_variant("vat3d.b63", FILES["vat3d.b63"]), 0).train()
    sum(model.loss(batch, 0.5).values()).backward()
    still = [name for name, one in model.named_parameters() if one.grad is None or not one.grad.abs().max() > 0]
    assert not still


def test_a_tokenizer_of_shapes_is_trained_and_evaluated(shapes: TrainingData, tmp_path: Path) -> None:
    folder = tmp_path / "adapters" / "vat3d"
    shutil.copytree(ROOT / "adapters" / "vat3d", folder, ignore=shutil.ignore_patterns("*.safetensors", "*.json"))
    toml = (folder / "b63.toml").read_text().replace("depth = 3", "depth = 1").replace("width = 96", "width = 32")
    (folder / "b63.toml").write_text(toml)
    options = TrainOptions("solids, 8 shapes", changes={"images": 160, "batch": 8, "rate": 3e-3})
    _, record = train_adapter("vat3d.b63", folder / "b63.toml", shapes, options)
    assert set(record.curve) == {"occupancy", "colour", "divergence", "bottleneck"}
    assert record.curve["occupancy"][-1] < record.curve["occupancy"][0] < 0.47  # the entropy of a constant answer

    adapter = load_adapter("vat3d.b63", root=tmp_path)
    model = adapter.model
    assert isinstance(model, LearnedTokenizer)
    voxels = shapes.values(torch.arange(2), "cpu")
    with torch.inference_mode():
        tokens = model.encode(voxels)
        decoded = model.decode(tokens, [0, 0])
        coarse = model.decode(tokens.truncate(3), [0, 0])
    assert decoded.shape == coarse.shape == (2, 4, 32, 32, 32)
    assert not torch.equal(decoded, coarse)
    empty = decoded[:, :1] <= 0
    assert (decoded[:, 1:].masked_select(empty.expand(-1, 3, -1, -1, -1)) == -1).all()
    (result,) = run_eval([adapter], open_dataset("solids", TOKBENCH, None, 2), ("shape_rate", "iou"))
    assert result.metrics["bytes_per_shape"]["value"] == 63
    assert 0 <= result.metrics["iou"]["value"] <= 1
