"""The commands on data that are no images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tokbench.data.dataset import open_dataset as open_images
from tokbench.errors import DataError
from tokbench.protocol.protocol import TOKBENCH


@pytest.mark.slow
def test_eval_check_and_list_know_every_kind_of_data(cli, tmp_path: Path) -> None:
    out = tmp_path / "results"
    for data, adapter, number in (("sprites", "h264.q30", "clip_kbps"), ("solids", "octree.c2", "bytes_per_shape")):
        done = cli("eval", adapter, "--data", data, "--limit", "2", "--out", str(out), "--no-cache", "--json")
        # Distances of networks are skipped where their weights are missing, and 2 items are few, but nothing fails.
        assert done.exit_code == 0, done.stderr
        (result,) = json.loads(done.stdout)
        assert number in result["metrics"]
        assert result["provenance"]["data"]["modality"] in ("video", "shape")
    checked = cli("check", "octree.c2", "--against", str(out), "--data", "solids")
    assert checked.exit_code == 0, checked.stdout
    assert cli("eval", "octree.c2", "--data", "solids", "--metrics", "psnr", "--out", str(out)).exit_code == 2
    refused = cli("eval", "jpeg.q50", "--data", "solids", "--limit", "1", "--out", str(out))
    assert refused.exit_code == 1
    assert "it takes data of the kind image, but these are shapes" in refused.stderr
    assert "500 clips, 64 px, drawn by code" in cli("list", "datasets").stdout
    with pytest.raises(DataError, match="sprites has data of the kind video, of which this command reads no images"):
        open_images("sprites", TOKBENCH)


@pytest.mark.parametrize("task", ["generate", "perturb", "decode"])
def test_tasks_that_exist_for_images_only_are_refused_at_once(cli, task: str, tmp_path: Path) -> None:
    done = cli("eval", "octree.c2", "--data", "solids", "--limit", "1", "--task", task, "--out", str(tmp_path))
    assert done.exit_code == 2
    assert f"--task {task} exists for images only, and these data are shapes" in done.stderr


def test_tables_name_the_items_and_their_size(cli, tmp_path: Path) -> None:
    out = tmp_path / "results"
    for data, adapter, text in (
        ("tones", "pcm.b8", "tones: 2 recordings of 8,000 samples at 8,000 Hz, "),
        ("solids", "octree.c2", "solids: 2 shapes of 32x32x32 voxels, "),
    ):
        done = cli("eval", adapter, "--data", data, "--limit", "2", "--out", str(out), "--no-cache")
        assert done.exit_code == 0, done.stderr
        noun = text.split()[2]
        assert text in done.stdout
        assert f"interval over {noun}." in done.stdout
        assert f"{adapter}: from 2 {noun}: intervals are wide" in done.stderr
        assert "image" not in done.stdout.partition("| adapter")[0]
        (file,) = out.glob(f"{adapter}/*.json")
        assert text.partition(": ")[2].strip(", ") in cli("show", str(file)).stdout
