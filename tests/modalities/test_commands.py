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
