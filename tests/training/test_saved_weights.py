"""Saving and loading trained weights: int8 where that is as good, else float16, with the measurement in the record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tokbench.errors import AdapterError, MissingWeights
from tokbench.nn.quantizers.kl import KL
from tokbench.nn.tokenizer import BottleneckAutoencoder
from tokbench.nn.trainable import FittedModel, Trainable, TrainingBatch
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.training_record import TrainRecord, read_record
from tokbench.training.zoo import CHECKED_IMAGES, load_trained, save_trained


class Small(BottleneckAutoencoder):
    """An orthogonal transform of 8x8 images and its inverse, which reconstructs them up to rounding."""

    perceptual = 0.0
    size = step = 8

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(192, 2 * 192, bias=False)
        self.decode = nn.Linear(192, 192, bias=False)
        self.bottleneck = KL(192)

    def encoded(self, images: Tensor) -> Tensor:
        return self.encode(images.flatten(1))[:, None]

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        assert seeds is not None and len(seeds) == len(vectors)
        return self.decode(vectors[:, 0]).unflatten(1, (3, 8, 8))


def small(components: int) -> Small:
    """Keep this many of 192 components: the fewer, the larger the error that int8 is compared with."""
    model = Small()
    directions = nn.init.orthogonal_(torch.empty(192, 192), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.encode.weight[:192] = directions
        model.encode.weight[components:] = 0
        model.decode.weight.copy_(directions.T)
    return model


class Classes(Trainable):
    """Finds the largest of four pixels; it has an input that is always 0, and a part that is not stored."""

    kept_out = ("only_training.",)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.only_training, self.head = nn.Linear(192, 64), nn.Linear(193, 4)
        with torch.no_grad():
            self.head.weight[:, :4] += 3 * torch.eye(4)

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        assert progress == 1.0 and batch.labels is not None and not self.training
        inputs = nn.functional.pad(batch.images.flatten(1), (0, 1))
        return {"classes": nn.functional.cross_entropy(self.head(inputs), inputs[:, :4].argmax(1))}


class Fitted(FittedModel):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(30, 30))

    def fit(self, images: Iterator[Tensor]) -> None:
        raise AssertionError


def examples(taken: list[int] | None = None) -> Iterator[TrainingBatch]:
    """Endless batches of random images."""
    draw = torch.Generator().manual_seed(1)
    while True:
        images = torch.rand(100, 3, 8, 8, generator=draw) * 2 - 1
        if taken is not None:
            taken.append(len(images))
        yield TrainingBatch(images, torch.randint(0, 4, (100,), generator=draw))


def record() -> TrainRecord:
    return TrainRecord("CPU", 1.0, 8, 1, 0, {"rate": 0.1})


def saved(model: nn.Module, folder: Path, batches: Iterator[TrainingBatch]) -> tuple[AdapterConfig, Any]:
    variant = AdapterConfig("x.y", folder / "x", {})
    variant.folder.mkdir()
    save_trained(model, variant.file, record(), "data", batches)
    return variant, read_record(variant.file)["recipe"]["storage"]


def psnr(model: Small) -> float:
    images = next(examples()).images
    with torch.no_grad():
        found = model.eval().pixels(model.squeeze(model.latents(images))[0], range(len(images)))
    return float(-10 * (found.clamp(-1, 1) - images).div(2).square().flatten(1).mean(1).log10().mean())


def test_int8_where_reconstructions_are_hardly_worse(tmp_path: Path) -> None:
    taken: list[int] = []
    model = small(96)
    variant, storage = saved(model, tmp_path, examples(taken))
    assert storage["dtype"] == "int8" and storage["unit"] == "dB PSNR" and storage["limit"] == 0.02
    assert storage["images"] == sum(taken) == 300 >= CHECKED_IMAGES > 200  # no more than needed are drawn
    stored = load_file(variant.file)
    assert stored["encode.weight"].dtype == stored["decode.weight"].dtype == torch.int8
    loaded = load_trained(variant, Small())
    # What is read is what was measured.
    assert psnr(model) - psnr(loaded) == pytest.approx(storage["int8_loss"], abs=0.005)
    assert loaded.encode.weight.dtype == torch.float32 and not loaded.encode.weight.requires_grad


def test_float16_where_int8_would_lose_more(tmp_path: Path) -> None:
    """A nearly exact reconstruction, in which the rounding to int8 is the largest error."""
    model = small(192)
    variant, storage = saved(model, tmp_path, examples())
    assert storage["dtype"] == "float16" and storage["int8_loss"] > 1
    assert {tensor.dtype for tensor in load_file(variant.file).values()} == {torch.float16}
    assert torch.equal(load_trained(variant, Small()).decode.weight, model.decode.weight.half().float())


@pytest.mark.parametrize("outlier, kind", [(0.1, "int8"), (2000.0, "float16")])
def test_other_models_are_compared_by_their_loss(tmp_path: Path, outlier: float, kind: str) -> None:
    """A large weight in each row makes the int8 grid so coarse that all other weights become 0."""
    model = Classes()
    with torch.no_grad():
        model.head.weight[:, -1] = outlier
    variant, storage = saved(model, tmp_path, examples())
    assert (storage["dtype"], storage["unit"]) == (kind, "training loss")
    assert (storage["int8_loss"] < storage["limit"]) == (kind == "int8")
    assert not [name for name in load_file(variant.file) if name.startswith("only_training.")]


def test_fitted_models_and_models_without_examples_are_float16(tmp_path: Path) -> None:
    variant, storage = saved(Fitted(), tmp_path, examples())
    assert storage == {"dtype": "float16"} and load_file(variant.file)["matrix"].dtype == torch.float16
    (tmp_path / "other").mkdir()
    assert saved(small(96), tmp_path / "other", islice(examples(), 0))[1] == {"dtype": "float16"}


def test_damaged_int8_files_are_refused_by_name(tmp_path: Path) -> None:
    variant, _ = saved(small(96), tmp_path, examples())
    stored = load_file(variant.file)
    scale = stored.pop("decode.weight.scale")
    save_file(stored, variant.file)
    with pytest.raises(AdapterError, match=r"x\.y: decode\.weight is int8 but has no scales"):
        load_trained(variant, Small())
    save_file(stored | {"decode.weight.scale": scale[:5]}, variant.file)
    with pytest.raises(AdapterError, match=r"x\.y: decode\.weight has shape \(192, 192\).*\(5,\)"):
        load_trained(variant, Small())
    save_file(stored | {"decode.weight.scale": scale, "extra.scale": scale.clone()}, variant.file)
    with pytest.raises(MissingWeights, match=r"has unknown extra\.scale"):
        load_trained(variant, Small())


def test_the_record_keeps_its_other_entries(tmp_path: Path) -> None:
    variant, _ = saved(small(96), tmp_path, examples())
    recipe = json.loads(variant.file.with_suffix(".training.json").read_text())["recipe"]
    assert recipe.keys() == {"rate", "data", "storage"} and recipe["data"] == "data"
