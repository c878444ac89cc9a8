"""Progress with and without a terminal, and runs that continue earlier results."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tokbench.cli.progress import ProgressLines, duration, progress_bar
from tokbench.errors import MissingWeights
from tokbench.evaluation.config import EvalConfig
from tokbench.extractors.pool import ExtractorPool
from tokbench.metric_names import METRICS
from tokbench.results.result import load
from tokbench.weights.registry import WeightFile


def test_a_line_a_minute_with_done_total_speed_and_time_left() -> None:
    lines: list[str] = []
    now = 0.0
    report = ProgressLines(lines.append, lambda: now)
    for second, done in ((0, 0), (30, 60), (59, 110), (60, 120), (61, 125), (119, 200), (125, 250), (250, 500)):
        now = second
        report("images", done, 500)
    assert lines == [
        "images: 120 of 500, 2 images/s, 3 min left",
        "images: 250 of 500, 2 images/s, 2 min left",
        "images: 500 of 500, 2 images/s, finished",
    ]


def test_the_speed_of_a_resumed_run_is_that_of_the_last_minute() -> None:
    lines: list[str] = []
    now = 0.0
    report = ProgressLines(lines.append, lambda: now)
    for second, done in ((0, 0), (1, 5000), (60, 5060), (120, 5120)):
        now = second
        report("images", done, 5240)
    assert lines[-1] == "images: 5,120 of 5,240, 1 images/s, 2 min left"


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.4, 59, 100, 3000, 11100)] == [
        "0 s",
        "59 s",
        "2 min",
        "50 min",
        "3 h 05 min",
    ]


def test_a_pipe_gets_lines_and_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with progress_bar() as progress:
        assert isinstance(progress, ProgressLines)
    with progress_bar(quiet=True) as progress:
        assert not isinstance(progress, ProgressLines)


def test_progress_is_reported_after_every_model_call(levels) -> None:
    from tokbench.api.data import open_dataset
    from tokbench.evaluation.config import Context, EvalConfig
    from tokbench.evaluation.evaluate import evaluate
    from tokbench.tokenizers.registry import LoadedAdapter

    images = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    seen: list[int] = []
    context = Context(progress=lambda what, done, total: seen.append(done) if what == "images" else None)
    adapters = [LoadedAdapter(name, name, levels(), {}) for name in ("a", "b")]
    evaluate(adapters, open_dataset(images), EvalConfig(("psnr",), batch_size=8), context)
    # A pass reads 32 and then 8 images; each adapter calls its model on 8 images at a time.
    assert seen == [0, 4, 8, 12, 16, 20, 24, 28, 32, 32, 36, 40, 40]


def test_skip_existing_measures_only_what_is_missing(
    cli, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tokbench.evaluation.evaluate as evaluation

    measured: list[tuple[list[str], tuple[str, ...]]] = []
    original = evaluation.evaluate

    def evaluate(adapters, stream, config, context):
        measured.append(([adapter.name for adapter in adapters], config.metrics))
        return original(adapters, stream, config, context)

    monkeypatch.setattr(evaluation, "evaluate", evaluate)

    def run(*adapters: str, metrics: str, data: Path = photo_folder) -> str:
        measured.clear()
        command = ["eval", *adapters, "--data", data, "--metrics", metrics, "--skip-existing", "--out", tmp_path]
        done = cli(*command)
        assert done.exit_code == 0, done.stderr
        return done.stdout + done.stderr

    run("jpeg.q50", metrics="psnr")
    assert measured == [(["jpeg.q50"], ("psnr",))]
    (path,) = tmp_path.glob("jpeg.q50/*.json")
    before = path.stat().st_mtime_ns
    text = run("jpeg.q50", metrics="psnr")
    assert measured == [] and path.stat().st_mtime_ns == before
    assert "kept jpeg.q50" in text and "| jpeg.q50" in text
    run("jpeg.q50", "jpeg.q90", metrics="psnr")
    assert measured == [(["jpeg.q90"], ("psnr",))]
    text = run("jpeg.q50", "jpeg.q90", metrics="psnr,ssim,codebook")
    assert measured == [(["jpeg.q50", "jpeg.q90"], ("ssim", "codebook"))]
    assert {"psnr", "ssim"} <= set(load(path).metrics) and "PSNR" in text
    run("jpeg.q50", metrics="psnr,ssim,codebook")  # a metric that is not defined for this adapter is not tried again
    assert measured == []


def test_skip_existing_measures_changed_pixels_and_settings(cli, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "p").mkdir()
    command = ["eval", "jpeg.q50", "--data", tmp_path / "p", "--metrics", "psnr", "--skip-existing"]
    for value, seed, kept in ((10, 0, False), (10, 0, True), (200, 0, False), (200, 1, False), (200, 1, True)):
        Image.new("RGB", (32, 32), (value, value, value)).save(tmp_path / "p" / "a.bmp")
        done = cli(*command, "--seed", seed, "--out", tmp_path / "out")
        assert done.exit_code == 0, done.stderr
        assert ("kept jpeg.q50" in done.stderr) is kept, (value, seed)


def test_weights_that_appeared_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from tokbench.evaluation import finished
    from tokbench.results.result import Result

    reason = "lpips-alex needs alexnet-owt-7be5be79.pth or alexnet-features.safetensors, which was not there"
    result = Result(
        "a", "d", "reconstruct", 9, {"psnr": {"value": 1.0}}, {"lpips": reason, "ssim": "too small"}, [], {}
    )
    present = False
    monkeypatch.setattr(finished, "is_present", lambda sources: present)
    config, local = EvalConfig(("psnr",)), ExtractorPool()
    lacks = [finished._lacks(result, name, config, local) for name in ("psnr", "lpips", "ssim", "ms_ssim")]
    assert lacks == [False, False, False, True]
    assert finished._lacks(result, "lpips", config, ExtractorPool(allow_download=True))
    present = True
    assert finished._lacks(result, "lpips", config, local)


def test_packages_that_appeared_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from tokbench.evaluation import finished
    from tokbench.results.result import Result

    reason = "rapidocr needs the packages rapidocr and onnxruntime, which were not installed"
    result = Result("a", "d", "reconstruct", 9, {}, {"text": reason}, [], {})
    config, networks = EvalConfig(("text",)), ExtractorPool()

    def missing(name: str) -> None:
        raise MissingWeights(reason)

    monkeypatch.setattr(networks, "reader", missing)
    assert not finished._lacks(result, "text", config, networks)
    monkeypatch.setattr(networks, "reader", lambda name: None)
    assert finished._lacks(result, "text", config, networks)


def test_weights_of_a_network_of_another_package_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from tokbench.evaluation import finished
    from tokbench.extractors.specs import ExtractorSpec
    from tokbench.results.result import Result

    spec = ExtractorSpec("mine", "mine:Network", (WeightFile("mine.pth", "", "its author"),))
    metric = replace(METRICS["lpips"], name="distance_mine", network="mine")
    monkeypatch.setattr(finished, "EXTRACTORS", {"mine": spec})
    monkeypatch.setattr(finished, "METRICS", {"distance_mine": metric})
    monkeypatch.setattr(finished, "is_present", lambda sources: True)
    reason = "mine needs mine.pth, which was not there"
    result = Result("a", "d", "reconstruct", 9, {}, {"distance_mine": reason}, [], {})
    assert finished._lacks(result, "distance_mine", EvalConfig(("distance_mine",)), ExtractorPool())


def test_skip_existing_measures_speeds_with_another_batch_size(cli, photo_folder: Path, tmp_path: Path) -> None:
    command = ["eval", "jpeg.q50", "--data", photo_folder, "--metrics", "psnr,speed", "--skip-existing"]
    for batch_size, kept in ((16, False), (16, True), (1, False), (1, True)):
        done = cli(*command, "--batch-size", batch_size, "--out", tmp_path)
        assert done.exit_code == 0, done.stderr
        assert ("kept jpeg.q50" in done.stderr) is kept, batch_size
    (path,) = tmp_path.glob("jpeg.q50/*.json")
    assert load(path).provenance["metrics"]["decode_images_per_second"]["batch_size"] == "1"


def test_skip_existing_measures_a_result_whose_values_per_image_were_lost(
    cli, photo_folder: Path, tmp_path: Path
) -> None:
    command = ["eval", "jpeg.q50", "--data", photo_folder, "--metrics", "psnr", "--skip-existing", "--out", tmp_path]
    for lost, kept in ((False, False), (False, True), (True, False), (False, True)):
        if lost:
            next(tmp_path.glob("jpeg.q50/*.npz")).unlink()
        assert ("kept jpeg.q50" in cli(*command).stderr) is kept
        (path,) = tmp_path.glob("jpeg.q50/*.json")
        assert load(path).per_image


def test_skip_existing_is_refused_for_samples(cli, tmp_path: Path) -> None:
    done = cli("eval", "jpeg.q50", "--task", "perturb", "--skip-existing", "--out", tmp_path)
    assert done.exit_code == 2 and "--skip-existing" in done.stderr
