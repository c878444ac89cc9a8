"""The kinds of data that `tokbench.evaluate` accepts, their names and sizes, progress and logging."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import tokbench
from tokbench.errors import DataError, UsageError

FAST = {"metrics": ["psnr"], "progress": False}


class Half(torch.nn.Module):
    """Halves the resolution."""

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(images, 2)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(latents, scale_factor=2)


class Pairs(Dataset):
    """Images with labels, whose end no IndexError marks."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        return self.images[position % len(self)], 7


class Stream(IterableDataset):
    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __iter__(self):
        return iter(self.images)


def levels(images: torch.Tensor) -> torch.Tensor:
    return (images * 255).round().to(torch.uint8)


def pillow(images: torch.Tensor) -> list[Image.Image]:
    return [Image.fromarray(image.numpy()) for image in levels(images).permute(0, 2, 3, 1)]


FORMS: dict[str, Callable[[torch.Tensor], object]] = {
    "tensor": lambda images: images,
    "uint8": levels,
    "float64": lambda images: images.double(),
    "torch dataset": Pairs,
    "iterable dataset": Stream,
    "loader": lambda images: DataLoader(Pairs(images), batch_size=4),
    "loader of single tensors": lambda images: DataLoader(TensorDataset(images), batch_size=4),
    "list": list,
    "list of pairs": lambda images: [(image, 0) for image in images],
    "generator": lambda images: (image for image in images),
    "generator of batches": lambda images: iter(images.split(4)),
    "pillow": pillow,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_folder_of_the_same_images(form: str, photos: torch.Tensor, tmp_path: Path) -> None:
    small = photos[:, :, ::8, ::8]
    for position, image in enumerate(pillow(small)):
        image.save(tmp_path / f"{position}.png")
    expected = tokbench.evaluate(Half(), tmp_path, **FAST)
    result = tokbench.evaluate(Half(), FORMS[form](small), **FAST)
    assert result["psnr"] == expected["psnr"]
    assert result.provenance["data"]["sha256"] == expected.provenance["data"]["sha256"]
    assert tokbench.compare(result, expected).verdicts["psnr"] == "same"
    assert result.num_images == len(small)


def test_floats_are_rounded_to_eight_bits(photos: torch.Tensor) -> None:
    near = (photos[:2] + 0.3 / 255).clamp(0, 1)
    assert tokbench.open_dataset(near).name == tokbench.open_dataset(photos[:2]).name


def test_sizes_and_limits(photos: torch.Tensor) -> None:
    mixed = [photos[0], photos[1][:, :128, :200], photos[2]]
    with pytest.raises(DataError, match=r"image 0 is 256x256, image 1 is 200x128\); use size=S"):
        tokbench.evaluate(Half(), mixed, **FAST)
    result = tokbench.evaluate(Half(), mixed, size=64, **FAST)
    assert (result.provenance["data"]["width"], result.num_images) == (64, 3)
    once = (image for image in photos)
    assert tokbench.evaluate(Half(), once, limit=2, size=32, **FAST).num_images == 2
    assert len(list(once)) == 4  # no more were read
    with pytest.raises(UsageError, match="limit must be at least 1"):
        tokbench.open_dataset(photos, limit=0)


def test_an_opened_dataset_serves_several_evaluations(photos: torch.Tensor) -> None:
    dataset = tokbench.open_dataset((image for image in photos), size=32)
    first, second = (tokbench.evaluate(Half(), dataset, **FAST) for _ in range(2))
    assert first["psnr"] == second["psnr"]
    for options, message in (
        ({"size": 64}, "different size"),
        ({"limit": 3}, "limit"),
        ({"protocol": "adm"}, "protocol"),
    ):
        with pytest.raises(UsageError, match=message):
            tokbench.evaluate(Half(), dataset, **options, **FAST)
    with pytest.raises(UsageError, match="split, column and follow_links"):
        tokbench.open_dataset(photos, split="test")


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (torch.rand(2, 3, 8, 8) * 2 - 1, DataError, r"image 0 has values from -0.*\(x \+ 1\) / 2"),
        (torch.rand(2, 3, 8, 8) * 255, DataError, r"image 0 has values from .*x / 255"),
        ([torch.rand(3, 8, 8), torch.full((3, 8, 8), torch.nan)], DataError, "image 1 has values from nan"),
        (torch.rand(2, 8, 8, 3), DataError, r"image 0 has the shape \(2, 8, 8, 3\)"),
        ([torch.rand(1, 8, 8)], DataError, r"image 0 has the shape \(1, 8, 8\)"),
        (torch.randint(0, 255, (2, 3, 8, 8)), DataError, "image 0 is a tensor of torch.int64"),
        (torch.rand(3, 8, 8), UsageError, r"but has \(3, 8, 8\)"),
        ([{"image": 0, "label": 1}], DataError, "item 0 of the data has the type dict with the keys image, label"),
        ([np.zeros((8, 8, 3))], DataError, "item 0 of the data has the type ndarray"),
        ([Image.new("L", (8, 8))], DataError, r"mode L; convert it"),
        ([], DataError, "contain no images; note that an iterator can be read only once"),
        ({"a": 1}, UsageError, "data of type dict cannot be read"),
        (3, UsageError, "data of type int cannot be read"),
        ("nowhere/at/all", UsageError, "no dataset or path"),
    ],
)
def test_other_data_are_refused(data: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tokbench.evaluate(Half(), data, **FAST)


def test_a_loader_that_shuffles_is_warned_of(photos: torch.Tensor, caplog: pytest.LogCaptureFixture) -> None:
    tokbench.evaluate(Half(), DataLoader(Pairs(photos), shuffle=True), size=32, **FAST)
    assert any("the DataLoader shuffles" in record.message for record in caplog.records)


def test_references_are_seen_by_networks_once(
    photos: torch.Tensor, networks, monkeypatch: pytest.MonkeyPatch, private_cache: Path
) -> None:
    monkeypatch.setattr("tokbench.evaluation.config.ExtractorPool", lambda *options: networks)
    seen: list[int] = []
    projection = type(networks._networks["lpips-alex"])
    forward = projection.__call__

    def counted(self: object, images: torch.Tensor, *rest: object) -> object:
        seen.append(len(images))
        return forward(self, images, *rest)

    monkeypatch.setattr(projection, "__call__", counted)
    options = {"metrics": ["rfid_768"], "progress": False}
    counts = []
    for cache in (True, True, False):
        seen.clear()
        value = tokbench.evaluate(Half(), photos, size=32, cache=cache, **options)["rfid_768"].value
        counts.append((sum(seen), value))
    assert [count for count, _ in counts] == [12, 6, 12]
    assert len({value for _, value in counts}) == 1
    assert list((private_cache / "features").rglob("*.npz"))
    assert not (private_cache / "runs").exists()


def test_a_finished_evaluation_of_an_adapter_leaves_no_checkpoint(photos: torch.Tensor, private_cache: Path) -> None:
    result = tokbench.evaluate("jpeg.q50", photos, **FAST)
    assert not list((private_cache / "runs").glob("*"))
    assert len(result.per_image["psnr"]) == 6


def test_progress_and_logging(
    photos: torch.Tensor, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO, "tokbench")
    tokbench.evaluate(Half(), photos, size=32, **FAST)
    assert capsys.readouterr() == ("", "")
    assert any("from 6 images" in record.message for record in caplog.records if record.name == "tokbench")
    tokbench.evaluate(Half(), photos, size=32, metrics="psnr,ssim")
    out, err = capsys.readouterr()
    assert out == "" and "images" in err and "intervals" in err
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    tokbench.evaluate(lambda x: x, tmp_path, progress=False, metrics=["psnr"])
    assert any("unreadable image b.png" in record.message for record in caplog.records)


def test_frames(photos: torch.Tensor) -> None:
    result = tokbench.evaluate({"half": Half()}, photos, size=32, metrics=["psnr", "ssim"], progress=False)["half"]
    frame = result.to_frame()
    assert list(frame.index) == ["psnr", "exact", "ssim"]
    assert list(frame.columns) == ["value", "low", "high", "n", "title", "higher_is_better"]
    assert frame.loc["psnr", "value"] == float(result["psnr"]) == result["psnr"].value
    images = result.per_image_frame()
    assert list(images.columns) == ["name", "psnr", "ssim"]
    assert images["ssim"].mean() == pytest.approx(result["ssim"].value)
    assert str(result["psnr"]).startswith("PSNR ") and str(result["psnr"]).endswith("(n = 6)")
    exact = tokbench.evaluate("identity", photos, **FAST)
    assert np.isnan(exact["psnr"].value) and exact["exact"].value == 6
