"""`benchmarks/gpu.py`: what travels to a GPU machine and back."""

from __future__ import annotations

import os
import runpy
import subprocess
from pathlib import Path

import pytest
import torch
from checkout import ROOT
from image_files import solid, write_parquet

from tokbench.data.dataset import open_dataset
from tokbench.nn.trainable import TrainingData
from tokbench.protocol.protocol import TOKBENCH
from tokbench.training.data import load_training_data

GPU = runpy.run_path(str(ROOT / "benchmarks" / "gpu.py"))
MIB = 1 << 20


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rows = [{"bytes": solid(20 * number), "path": f"{number}.png"} for number in range(10)]
    return write_parquet(tmp_path / "some-photos" / "a.parquet", rows, [number % 3 for number in range(10)]).parent


def loaded(data: Path) -> TrainingData:
    return load_training_data(open_dataset(str(data), TOKBENCH, None, None, None))


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the code is listed by Git")
@pytest.mark.parametrize("pixels", [False, True])
def test_the_images_are_the_same_after_the_journey(photos: Path, tmp_path: Path, pixels: bool) -> None:
    wheel = tmp_path / "some.whl"
    wheel.write_bytes(b"x" * 1000)
    size = 2 * MIB
    archives = GPU["pack"](str(photos), tmp_path / "ship", None, pixels, size, [wheel])
    assert len(archives) > 1 and all(path.stat().st_size <= size for path in archives)
    GPU["unpack"](archives, tmp_path / "there")
    (data,) = (tmp_path / "there" / "data").iterdir()
    first, other = loaded(photos), loaded(data)
    assert first.labels is not None and torch.equal(first.labels, other.labels)
    assert first.sha256 == other.sha256
    code = tmp_path / "there" / "checkout"
    for name in ("tokbench/training/loop.py", "adapters/vqgan/f8.toml", "benchmarks/gpu.sh"):
        assert (code / name).read_bytes() == (ROOT / name).read_bytes()
    assert not list(code.rglob("*.safetensors"))
    assert (tmp_path / "there" / "extra" / "some.whl").read_bytes() == wheel.read_bytes()


def test_images_are_split_into_files_that_fit(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, parts = GPU["_parts"](str(photos), None, False, 250)
    assert name.startswith("some-photos") and len(parts) > 2
    assert len(GPU["_parts"](str(photos), 1, False, 250)[1]) == 1


def write_zoo(folder: Path, sizes: dict[str, list[int]]) -> None:
    for variant, lengths in sizes.items():
        place = folder / "adapters" / "mini"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{variant}.training.json").write_text("{}")
        for number, length in enumerate(lengths, 1):
            shard = "" if len(lengths) == 1 else f"-{number:05}-of-{len(lengths):05}"
            (place / f"{variant}{shard}.safetensors").write_bytes(bytes(length))


def test_weights_come_back_in_few_archives_and_can_be_put_into_a_checkout(tmp_path: Path) -> None:
    sizes = {f"v{number}": [100_000] for number in range(9)} | {"large": [150_000, 150_000]}
    write_zoo(tmp_path / "zoo", sizes)
    archives = GPU["collect"](tmp_path / "zoo", tmp_path / "back", 4, 16 * MIB)
    assert len(archives) == 1
    archives = GPU["collect"](tmp_path / "zoo", tmp_path / "back", 4, 400_000)
    assert 1 < len(archives) <= 4 and len(list((tmp_path / "back").glob("*.tar"))) == len(archives)
    assert all(path.stat().st_size <= 700_000 for path in archives)  # 1.2 MB in all: more than four times the size
    GPU["unpack"](archives, tmp_path / "checkout")
    back, sent = (
        {
            path.relative_to(tmp_path / root): path.read_bytes()
            for path in (tmp_path / root).rglob("*")
            if path.is_file()
        }
        for root in ("checkout", "zoo")
    )
    assert back == sent and len(back) == 21


def test_a_file_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"big takes .* more than an archive of 1,048,576 bytes holds"):
        GPU["write_archives"](tmp_path, "x", [[("big", bytes(2 * MIB))]], MIB)


def test_without_a_training_there_is_nothing_to_bring_back(tmp_path: Path) -> None:
    assert GPU["collect"](tmp_path, tmp_path / "back", 4, MIB) == []


def test_the_deadline_counts_the_checkpoints_where_they_are(tmp_path: Path) -> None:
    """In a Git checkout they are not below WORK."""
    script = tmp_path / "benchmarks" / "gpu.sh"
    script.parent.mkdir()
    script.write_bytes((ROOT / "benchmarks" / "gpu.sh").read_bytes())
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase $* in *"tokbench train"*) exec sleep 60 ;; esac\n')
    python.chmod(0o755)
    for folder in (tmp_path / ".cache" / "training", tmp_path / "work" / "cache" / "training"):
        folder.mkdir(parents=True)
        (folder / "mini.c4-0123456789abcdef.pt").touch()
    folders = {"WORK": str(tmp_path / "work"), "OUT": str(tmp_path / "back")}
    settings = os.environ | folders | {"PYTHON": str(python), "DEADLINE": "1"}
    done = subprocess.run(["sh", script, "train"], env=settings, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "unfinished trainings that are saved: 2" in done.stdout
