"""Faults around a run: full disks, two runs at once, strangers' code, the network, the cache command."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from factories import image_columns, make_result

from tokbench.errors import ResultError
from tokbench.evaluation.checkpoint import Checkpoint
from tokbench.io import atomic
from tokbench.results.result import Result, load
from tokbench.tokenizers.registry import load_adapter


def made(metric: str, count: int = 50) -> Result:
    """A small result with one metric."""
    numbers = {metric: {"value": 1.0, "low": 0.5, "high": 1.5, "n": count}}
    columns = image_columns(count, **{metric: np.ones(count)})
    return make_result("toy.p8", numbers, dataset="samples", num_images=count, per_image=columns)


def test_a_full_disk_says_so_and_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = made("psnr").save(tmp_path)
    before = {file: file.read_bytes() for file in path.parent.iterdir()}

    def full(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ResultError, match=r"No space left on device.*an existing file is unchanged"):
        made("ssim").save(tmp_path)
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before


def test_a_real_full_disk(tmp_path: Path) -> None:
    """/dev/full refuses every write, as a full disk does."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OSError, match="No space left"), Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"x")
    with pytest.raises(ResultError, match="cannot be written"):
        atomic.write_atomically(Path("/dev/full/x"), b"x")


def _save(folder: str, metric: str, times: int) -> None:
    for _ in range(times):
        made(metric).save(Path(folder))


@pytest.mark.slow
def test_two_runs_that_write_one_result_lose_nothing(tmp_path: Path) -> None:
    """Four processes join their metrics into one file again and again; at the end all are there, and whole."""
    start = multiprocessing.get_context("fork")  # a spawned one would have to import this file
    names = ["psnr", "ssim", "lpips", "bpp"]
    processes = [start.Process(target=_save, args=(str(tmp_path), name, 20)) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    (path,) = tmp_path.rglob("*.json")
    result = load(path)
    assert set(result.metrics) == set(names)
    assert set(result.per_image) == {"index", "name", *names}
    assert len(list(path.parent.iterdir())) == 2  # nothing temporary is left


STRANGER = """
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens

class Copy(Tokenizer):
    def __init__(self, name):
        self.spec = TokenizerSpec(name, "codec")
    def encode(self, images):
        return Tokens.from_samples((images * 255).round().byte())
    def decode(self, tokens, seeds):
        return tokens.tensor.float() / 255

def load(variant, device):
    return Copy(variant.name)
"""


def test_a_strangers_code_is_announced_once(cli, tmp_path: Path, photo_folder: Path, capfd, caplog) -> None:
    folder = tmp_path / "strange"
    folder.mkdir()
    (folder / "adapter.py").write_text(STRANGER)
    (folder / "one.toml").write_text("")
    (folder / "two.toml").write_text("")
    command = ["--data", photo_folder, "--metrics", "psnr", "--out", tmp_path / "out"]
    done = cli("eval", folder / "one.toml", folder / "two.toml", *command)
    assert done.exit_code == 0, done.output
    warnings = [record.getMessage() for record in caplog.records if "runs with your permissions" in record.getMessage()]
    assert len(warnings) == 1
    assert str(folder / "adapter.py") in warnings[0]


def test_our_own_adapters_are_not(caplog) -> None:
    load_adapter("toy.p8")
    assert "your rights" not in caplog.text


@pytest.mark.slow
def test_nothing_reaches_for_the_network(cli, tmp_path: Path, photo_folder: Path, monkeypatch) -> None:
    """Neither a whole run nor a missing weight nor an unknown hub id opens a connection unless it is allowed."""

    def refused(*given, **options):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "create_connection", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setenv("TOKBENCH_WEIGHTS", str(tmp_path / "none"))
    command = ["--data", photo_folder, "--metrics", "all", "--out", tmp_path / "out"]
    done = cli("eval", "jpeg.q50", "diffusers:somebody/vae", *command)
    assert done.exit_code == 1
    assert "lpips" in done.stderr and "weights missing; add --allow-download" in done.stderr
    assert "failed diffusers:somebody/vae" in done.stderr
    assert "a connection was opened" not in done.output
    assert list((tmp_path / "out").glob("jpeg.q50/*.json"))


@pytest.mark.slow
def test_cache_shows_and_clears(cli, tmp_path: Path, photo_folder: Path, private_cache: Path) -> None:
    command = ["--data", photo_folder, "--metrics", "fd_efficientnet", "--out", tmp_path / "out"]
    assert cli("eval", "jpeg.q50", *command).exit_code == 0
    checkpoint = Checkpoint(
        private_cache / "runs", {"adapter": "a.b", "dataset": "d", "images": 40, "metrics": ["psnr"]}
    )
    checkpoint.write(0, np.arange(32), ["x"] * 32, {"psnr": {"psnr": np.ones(32)}}, {})
    shown = cli("cache")
    assert "reference features: 1 file," in shown.output
    assert "unfinished runs: 1" in shown.output
    assert "a.b on d: about 32 of 40 images" in shown.output
    kept = cli("cache", "clear")
    assert kept.exit_code == 0
    assert "kept: 1 run in progress" in kept.stderr  # this very process holds it
    checkpoint.close()
    assert "deleted 1 unfinished run" in cli("cache", "clear", "--runs").output
    assert "reference features: 0 files" in cli("cache").output
    assert "unfinished runs: none" in cli("cache").output


@pytest.mark.slow
def test_no_cache_leaves_nothing(cli, tmp_path: Path, photo_folder: Path, private_cache: Path) -> None:
    command = ["--data", photo_folder, "--metrics", "fd_efficientnet", "--out", tmp_path / "out", "--no-cache"]
    assert cli("eval", "jpeg.q50", *command).exit_code == 0
    assert not list(private_cache.rglob("*.npz"))


def test_links_out_of_a_dataset_need_a_word(cli, tmp_path: Path, photo_folder: Path) -> None:
    folder = tmp_path / "linked"
    folder.mkdir()
    shutil.copy(photo_folder / "photo0.png", folder / "a.png")
    (folder / "b.png").symlink_to(photo_folder / "photo1.png")
    command = ["eval", "identity", "--data", folder, "--metrics", "psnr", "--json", "--out", tmp_path / "out"]
    refused = cli(*command)
    assert refused.exit_code == 1
    assert "--follow-links" in json.loads(refused.stdout)[0]["bad_images"][0]["reason"]
    followed = cli(*command, "--follow-links")
    assert followed.exit_code == 0
    assert json.loads(followed.stdout)[0]["num_images"] == 2
