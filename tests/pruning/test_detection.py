"""Average precision of detections, and the benchmark of detectors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from checkout import ROOT

from tokbench.data.synthetic.scenes import boxes_of, draw, make_scene
from tokbench.nn.detr import FocusDETR
from tokbench.pruning.average_precision import Detections, average_precision
from tokbench.pruning.detection import applied, detect, is_detector

TRUTHS = [np.array([[0, 0.1, 0.1, 0.4, 0.4], [1, 0.5, 0.5, 0.9, 0.9]]), np.array([[0, 0.2, 0.3, 0.6, 0.8]])] * 3


def found(shift: float = 0.0, score: float = 0.9) -> list[Detections]:
    return [Detections(np.full(len(own), score), own[:, 0], own[:, 1:] + shift) for own in TRUTHS]


def test_exact_boxes_have_a_precision_of_one_and_shifted_ones_less() -> None:
    exact = average_precision(found(), TRUTHS, 128)
    assert exact.values == {"ap50": pytest.approx(1), "ap": pytest.approx(1)}
    shifted = average_precision(found(0.03), TRUTHS, 128)
    assert shifted.values["ap50"] == pytest.approx(1) and 0.3 < shifted.values["ap"] < 0.9
    assert average_precision([Detections(*np.zeros((2, 0)), np.zeros((0, 4)))] * 6, TRUTHS, 128).values["ap"] == 0
    gap = shifted.gap("ap", exact)
    assert gap.value < 0 and gap.low <= gap.value <= gap.high and exact.estimate("ap50").high == 1


def test_a_missed_class_counts_by_class_and_the_interval_by_images() -> None:
    missed = [Detections(one.scores[:1], one.classes[:1], one.boxes[:1]) for one in found()]  # never class 1
    assert average_precision(missed, TRUTHS, 128).values["ap50"] == pytest.approx(0.5)
    partly = [own if place else Detections(*np.zeros((2, 0)), np.zeros((0, 4))) for place, own in enumerate(found())]
    estimate = average_precision(partly, TRUTHS, 128).estimate("ap50")
    assert estimate.low < estimate.value < estimate.high <= 1


def test_boxes_of_scenes_enclose_what_is_drawn() -> None:
    for position in range(40):
        scene = make_scene("test", position)
        pixels = draw(scene, 128).astype(int)
        assert pixels.shape == (128, 128, 3)
        for (kind, left, top, right, bottom), one in zip(boxes_of(scene, 128), scene.objects, strict=True):
            assert kind == 6 if one.text else kind < 6
            alone = np.abs(draw(scene.__class__((one,), scene.background, scene.slope), 128).astype(int)
                           - draw(scene.__class__((), scene.background, scene.slope), 128)).sum(2) > 0  # fmt: skip
            rows, columns = np.flatnonzero(alone.any(1)), np.flatnonzero(alone.any(0))
            edges = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / 128
            assert np.abs(edges - (left, top, right, bottom)).max() < 1.3 / 128


def test_detections_are_the_best_pairs_and_settings_are_restored() -> None:
    torch.manual_seed(0)
    network = FocusDETR(64, 3, 16, 2, 1, 4, keep=0.5).eval()
    images = torch.rand(2, 3, 64, 64)
    with applied(network, 0.25, "norm"):
        (first, _), counts = detect(network, images, [0, 1]), network.encoder.counts
    assert counts == [21, 17] and (network.encoder.keep, network.encoder.selection) == (0.5, "learned")
    assert len(first.scores) == 4 and (np.diff(first.scores) <= 0).all() and first.boxes.shape == (4, 4)


def test_the_command_measures_a_detector(cli, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "adapters" / "focus_detr", tmp_path / "adapters" / "focus_detr")
    shutil.copytree(ROOT / "datasets" / "scenes-128", tmp_path / "datasets" / "scenes-128")
    shutil.copytree(ROOT / "datasets" / "scenes-128-train", tmp_path / "datasets" / "scenes-128-train")
    assert is_detector("focus_detr.d4", tmp_path) and not is_detector("vit_tiny_imagenet.d12")
    where = ("--root", tmp_path)
    done = cli("train", "focus_detr.d4_dense", "--budget", "32i", "--limit", 32, *where)
    assert done.exit_code == 0, done.output
    asked = ("prune", "random", "--model", "focus_detr.d4_dense", "--data", "scenes-128", "--limit", 8, "--keep", "0.5",
             "--batches", 0, "--out", tmp_path / "out", *where)  # fmt: skip
    done = cli(*asked)
    assert done.exit_code == 0, done.output
    assert "AP50 - full" in done.stdout and "the other rows are not judged" in done.stdout
    (path,) = (tmp_path / "out").glob("*/detection/*.json")
    rows = json.loads(path.read_text())["rows"]
    assert [row["method"] for row in rows] == ["full", "random"]
    assert rows[0]["tokens"] == [336] * 4 and rows[1]["tokens"] == [168, 134, 101, 67]
    assert rows[1]["gflops"] < rows[0]["gflops"]
    failed = cli("prune", "best", *asked[2:])
    assert failed.exit_code == 2 and "neither learned, random, norm nor one of the detectors" in failed.stderr
