"""Interrupted runs: whatever stops one, the same command goes on and gives the identical result."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import evaluate_model, run_eval
from image_files import write_gradients
from PIL import Image

from tokbench.data.dataset import open_dataset
from tokbench.data.stream import CHUNK
from tokbench.errors import DataError
from tokbench.evaluation.checkpoint import unfinished
from tokbench.evaluation.distributed import ProcessGroup
from tokbench.protocol.protocol import TOKBENCH
from tokbench.results.result import Result
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.registry import load_adapter
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens

COUNT = 3 * CHUNK + 5
METRICS = ["rate", "psnr", "ssim", "rfid_64", "codebook"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred noisy gradients of 32 x 32 px."""
    return write_gradients(tmp_path_factory.mktemp("many"), COUNT)


class Counting(Tokenizer):
    """16 grey levels of 4 x 4 blocks; counts images, and fails at one of them while that is switched on."""

    spec = TokenizerSpec("counting", "discrete", downsample=4, codebook={"codes": 16}, bits_per_token=4)

    def __init__(self, fail_after: int | None = None) -> None:
        self.encoded, self.fail_after = 0, fail_after

    def encode(self, images: torch.Tensor) -> Tokens:
        self.encoded += len(images)
        if self.fail_after is not None and self.encoded > self.fail_after:
            raise RuntimeError("the device is lost")
        codes = (torch.nn.functional.avg_pool2d(images.mean(1), 4) * 15).round().long()
        return Tokens.from_indices(codes, 16)

    def decode(self, tokens: Tokens, seeds) -> torch.Tensor:
        grey = tokens.tensor.float()[:, None].repeat(1, 3, 1, 1) / 15
        return torch.nn.functional.interpolate(grey, scale_factor=4)


def run(folder: Path, networks, cache: Path | None, model: Counting | None = None, **options) -> Result:
    model = model or Counting()
    dataset = open_dataset(str(folder), TOKBENCH)
    return evaluate_model(model, dataset, METRICS, networks=networks, cache=cache, **options)


def alike(one: Result, other: Result) -> None:
    """Equal in every number, interval, per-image value and replicate, bit for bit."""
    assert one.error is None
    assert other.error is None
    assert json.dumps(one.to_dict(), sort_keys=True) == json.dumps(other.to_dict(), sort_keys=True)
    for name, values in one.per_image.items():
        np.testing.assert_array_equal(values, other.per_image[name])
    for name, made in one.replicates.items():
        np.testing.assert_array_equal(made.as_array(), other.replicates[name].as_array())


@pytest.mark.parametrize("batch_size", [8, 64])
def test_a_run_that_failed_half_way_goes_on(folder: Path, networks, tmp_path: Path, batch_size: int) -> None:
    whole = run(folder, networks, None, batch_size=batch_size)
    broken = Counting(fail_after=70 + 8)  # some images are tried once more than needed
    failed = run(folder, networks, tmp_path, broken, batch_size=batch_size)
    assert "the device is lost" in failed.error
    assert "failed on the batch that starts with 064.png" in failed.error
    (left,) = unfinished(tmp_path / "runs")
    assert (left.about["adapter"], left.about["images"], left.images) == ("counting", COUNT, 2 * CHUNK)
    again = Counting()
    alike(run(folder, networks, tmp_path, again, batch_size=batch_size), whole)
    assert again.encoded <= COUNT - 2 * CHUNK + 4


def test_a_finished_run_whose_result_was_not_saved_computes_nothing(folder: Path, networks, tmp_path: Path) -> None:
    first = run(folder, networks, tmp_path)
    again = Counting()
    second = run(folder, networks, tmp_path, again)
    alike(second, first)
    assert again.encoded == 0
    first.checkpoint.discard()
    assert list(unfinished(tmp_path / "runs"))  # the second one holds it still
    second.checkpoint.discard()
    assert not list(unfinished(tmp_path / "runs"))


def test_the_last_one_deletes_the_checkpoint(folder: Path, networks, tmp_path: Path) -> None:
    result = run(folder, networks, tmp_path)
    result.checkpoint.discard()
    assert not list((tmp_path / "runs").iterdir())


def test_changed_pixels_are_measured_again(folder: Path, networks, tmp_path: Path) -> None:
    """Names and file sizes stay, so the checkpoint does too; only the unit of the changed image is recomputed."""
    (tmp_path / "many").mkdir()
    for file in folder.iterdir():
        Image.open(file).save(tmp_path / "many" / f"{file.stem}.bmp")
    before = run(tmp_path / "many", networks, tmp_path / "cache")
    image = Image.open(tmp_path / "many" / "040.bmp").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image.save(tmp_path / "many" / "040.bmp")
    again = Counting()
    result = run(tmp_path / "many", networks, tmp_path / "cache", again)
    assert result.dataset == before.dataset
    assert 0 < again.encoded <= CHUNK + 4
    alike(result, run(tmp_path / "many", networks, None))


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "foreign"])
def test_damaged_files_of_the_cache_are_made_again(folder: Path, networks, tmp_path: Path, damage: str) -> None:
    first = run(folder, networks, tmp_path)
    files = sorted(tmp_path.rglob("*.npz"))
    assert len(files) == 2 * 4  # the units of the checkpoint, and the references' features
    for file in files[::2]:
        data = bytearray(file.read_bytes())
        if damage == "flip":
            data[len(data) // 2] ^= 0x10
        made = {"cut": data[: len(data) // 2], "flip": data, "empty": b"", "foreign": b"PK\x03\x04 something else"}
        file.write_bytes(bytes(made[damage]))
    alike(run(folder, networks, tmp_path), first)


def test_features_of_references_are_computed_once(folder: Path, networks, tmp_path: Path, monkeypatch) -> None:
    network = networks.get("inception-2015-12-05")
    seen = 0
    forward = type(network).forward

    def counted(self, images: torch.Tensor, chunk: int) -> dict[str, torch.Tensor]:
        nonlocal seen
        seen += len(images)
        return forward(self, images, chunk)

    monkeypatch.setattr(type(network), "forward", counted)
    first = run(folder, networks, tmp_path)
    both, seen = seen, 0
    first.checkpoint.discard()
    alike(run(folder, networks, tmp_path), first)
    assert seen == both / 2  # of the reconstructions alone


@pytest.mark.slow
def test_rows_in_files_take_no_memory_and_large_sets_go_block_by_block(
    folder: Path, networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums over blocks give what the whole set gives, in the value and in every replicate."""
    whole = run(folder, networks, tmp_path / "a")
    monkeypatch.setattr("tokbench.metrics.sample_store.MAX_IN_MEMORY", 64)
    parts = run(folder, networks, tmp_path / "b")
    for number, entry in whole.metrics.items():
        if entry["value"] is not None:
            assert parts.metrics[number]["value"] == pytest.approx(entry["value"], rel=1e-6), number
    for number, made in whole.replicates.items():
        np.testing.assert_allclose(parts.replicates[number].as_array(), made.as_array(), rtol=1e-5)


def test_out_of_memory_halves_the_batch(folder: Path, networks) -> None:
    class Large(Counting):
        def encode(self, images: torch.Tensor) -> Tokens:
            if len(images) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().encode(images)

    alike(run(folder, networks, None, Large(), batch_size=16), run(folder, networks, None, batch_size=2))

    class Never(Counting):
        def encode(self, images: torch.Tensor) -> Tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")

    assert "out of memory with a single image, 000.png" in run(folder, networks, None, Never()).error


def test_a_cache_that_cannot_be_written_costs_only_resuming(folder: Path, networks, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    warnings: list[str] = []
    alike(run(folder, networks, tmp_path / "file", warn=warnings.append), run(folder, networks, None))
    assert any("cannot be resumed" in text for text in warnings)
    assert any("kept in memory only" in text for text in warnings)


COMMAND = ["eval", "toy.p8", "--metrics", "psnr,ssim,ms_ssim,fd_efficientnet"]
COMMAND += ["--json", "--data", "samples", "--limit", "96"]


@pytest.fixture(scope="module")
def running(started):
    """Starts the command with an output and a cache."""
    return lambda out, cache: started([*COMMAND, "--out", out], os.environ | {"TOKBENCH_CACHE": str(cache)})


@pytest.fixture(scope="module")
def undisturbed(running, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The output of a command that is not interrupted."""
    folder = tmp_path_factory.mktemp("undisturbed")
    printed: str = running(folder / "out", folder / "cache").communicate(timeout=240)[0]
    return printed


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_process_goes_on_where_it_was(
    number: signal.Signals, running, tmp_path: Path, undisturbed: str
) -> None:
    """A whole process, stopped as soon as it has kept a unit; its second start gives what an undisturbed run gives."""
    cache = tmp_path / "cache"
    first = running(tmp_path / "out", cache)
    deadline = time.monotonic() + 240
    while not list((cache / "runs").glob("*/0*.npz")):
        assert first.poll() is None, first.communicate(timeout=60)
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.send_signal(number)
    _, stderr = first.communicate(timeout=60)
    assert first.returncode in (-number, 128 + number)
    if number != signal.SIGKILL:
        assert f"stopped by {number.name}" in stderr
        assert "repeat the command to resume" in stderr
    assert not (tmp_path / "out" / "toy.p8").exists()
    kept = len(list((cache / "runs").glob("*/0*.npz")))
    assert 1 <= kept < 3
    again = running(tmp_path / "out", cache)
    out, stderr = again.communicate(timeout=240)
    assert again.returncode == 0, stderr
    assert out == undisturbed
    assert not list((cache / "runs").iterdir())


def test_resuming_needs_the_same_adapter(folder: Path, networks, tmp_path: Path) -> None:
    """Another tokenizer of the same name, data and metrics has a checkpoint of its own."""

    class Darker(Counting):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.module = torch.nn.Linear(2, 2)

        def decode(self, tokens: Tokens, seeds) -> torch.Tensor:
            return super().decode(tokens, seeds) * 0.5

    run(folder, networks, tmp_path)
    alike(run(folder, networks, tmp_path, Darker()), run(folder, networks, None, Darker()))


def test_images_made_elsewhere_are_compared_by_their_pixels(folder: Path, networks, tmp_path: Path) -> None:
    """A folder of reconstructions has no weights whose hash would show that it changed between two runs."""
    shutil.copytree(folder, tmp_path / "made")

    def measured(cache: Path | None) -> Result:
        (result,) = run_eval(
            [load_adapter(f"images:{tmp_path / 'made'}")],
            open_dataset(str(folder), TOKBENCH),
            ["psnr", "rfid_64"],
            networks=networks,
            cache=cache,
        )
        return result

    before = measured(tmp_path / "cache")
    alike(measured(tmp_path / "cache"), before)
    picture = np.asarray(Image.open(tmp_path / "made" / "050.png"))
    Image.fromarray(255 - picture).save(tmp_path / "made" / "050.png")
    after = measured(tmp_path / "cache")
    alike(after, measured(None))
    assert after.provenance["adapter"]["fingerprint"] != before.provenance["adapter"]["fingerprint"]
    assert after.metrics["psnr"]["value"] != before.metrics["psnr"]["value"]


@pytest.mark.parametrize("cached", [False, True])
def test_several_processes_need_files_for_every_adapter(tmp_path: Path, folder: Path, networks, cached: bool) -> None:
    """The values of the other processes arrive in files. An object of this process has none, even with a
    cache."""
    adapter = replace(load_adapter("jpeg.q50"), resumable=not cached)
    options = {"ranks": ProcessGroup(0, 2), "cache": tmp_path if cached else None}
    with pytest.raises(DataError, match="several processes need a writable cache folder"):
        run_eval([adapter], open_dataset(str(folder), TOKBENCH), ["psnr"], networks=networks, **options)
