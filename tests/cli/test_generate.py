"""`tokbench eval --task generate` on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tokbench.extractors.pool import ExtractorPool
from tokbench.metric_names import INCEPTION
from tokbench.metrics.fid_statistics import FidStatistics
from tokbench.protocol.protocol import TOKBENCH
from tokbench.results.result import load


def moments(tiles: Path, networks: ExtractorPool) -> tuple[np.ndarray, np.ndarray]:
    """Return mean (64,) and covariance (64, 64) of the 64-d layer over the images of a folder."""
    network = networks.get(INCEPTION, TOKBENCH.features.input)
    network.request_layer("64")
    pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(tiles.glob("*.png"))])
    found = network(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)["64"].double().numpy()
    return found.mean(0), np.cov(found, rowvar=False)


class TestCommand:
    @pytest.fixture(autouse=True)
    def stand_ins(self, networks: ExtractorPool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tokbench.extractors.pool.ExtractorPool", lambda *_: networks)

    def test_a_folder_against_a_folder(self, cli: Any, tiles: Path, tmp_path: Path) -> None:
        (tmp_path / "samples").mkdir()
        for number in range(10):
            (tmp_path / "samples" / f"s{number}.png").write_bytes((tiles / f"{number:02d}.png").read_bytes())
        out, metrics = tmp_path / "out", "gfid_64,precision_recall_efficientnet"
        done = cli(
            "eval", f"images:{tmp_path / 'samples'}", "--task", "generate", "--data", tiles, "--metrics", metrics,
            "--out", out,
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        assert "10 samples of 32x32 px against 48 images" in done.stdout
        (path,) = out.glob("*/*generate.json")
        result = load(path)
        assert result.num_images == 10
        assert result.metrics["precision_efficientnet"]["value"] == 1.0
        assert 0 < result.metrics["recall_efficientnet"]["value"] < 1
        assert cli("leaderboard", "--out", out).exit_code == 0
        (table,) = (out / "leaderboard").glob("*generate.md")
        assert "gFID-64" in table.read_text()

    def test_a_statistics_file_as_data(self, cli: Any, tiles: Path, tmp_path: Path, networks: ExtractorPool) -> None:
        mean, covariance = moments(tiles, networks)
        statistics = FidStatistics({"64": (mean, covariance)}, INCEPTION, TOKBENCH.features.input, "float32", "0" * 64)
        statistics.save(tmp_path / "ref.npz")
        data = ("--data", tmp_path / "ref.npz", "--out", tmp_path / "out")
        done = cli("eval", f"images:{tiles}", "--task", "generate", "--metrics", "gfid_64", *data)
        assert done.exit_code == 0, done.output
        (path,) = (tmp_path / "out").glob("*/*generate.json")
        assert ".ref-" in path.name
        assert load(path).metrics["gfid_64"]["value"] == pytest.approx(0, abs=1e-6)
        done = cli("eval", "toy.p8", "--task", "generate", *data)
        assert "the number of samples is unknown" in done.output

    def test_a_reference_batch_of_images_and_statistics(
        self, cli: Any, tiles: Path, tmp_path: Path, networks: ExtractorPool
    ) -> None:
        """In a reference batch of ADM, distances use the statistics, and neighbour metrics use the images."""
        mean, covariance = moments(tiles, networks)
        pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(tiles.glob("*.png"))])
        np.savez(tmp_path / "adm.npz", arr_0=pixels, mu=2 * mean, sigma=covariance)  # not those of the images
        done = cli(
            "eval", f"images:{tiles}", "--task", "generate", "--data", tmp_path / "adm.npz", "--out", tmp_path / "out",
            "--reference-is", f"{INCEPTION}:{TOKBENCH.features.input}:float32",
            "--metrics", "gfid_64,precision_recall_768",
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        (path,) = (tmp_path / "out").glob("*/*generate.json")
        result = load(path)
        assert result.metrics["gfid_64"]["value"] == pytest.approx(float((mean**2).sum()), rel=1e-6)
        assert result.metrics["precision_768"]["value"] == result.metrics["recall_768"]["value"] == 1

    def test_samples_must_be_there(self, cli: Any, tiles: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        for samples, options, why in (
            (tmp_path / "empty", (), "no images found"),
            (tiles, ("--limit", 100), "holds 48 images, fewer than --limit 100"),
        ):
            done = cli("eval", f"images:{samples}", "--task", "generate", "--data", tiles, *options)
            assert done.exit_code == 2
            assert why in done.output

    @pytest.mark.parametrize("broken", [b"", b"PK", b"no zip at all"])
    def test_a_broken_file_is_named(self, cli: Any, tiles: Path, tmp_path: Path, broken: bytes) -> None:
        (tmp_path / "x.NPZ").write_bytes(broken)
        done = cli("eval", f"images:{tiles}", "--task", "generate", "--data", tmp_path / "x.NPZ")
        assert done.exit_code == 1
        assert "x.NPZ" in done.output
        assert "Traceback" not in done.output

    def test_wrong_usage(self, cli: Any, tiles: Path, tmp_path: Path) -> None:
        stats = tmp_path / "stats.npz"
        np.savez(stats, mu=np.zeros(4), sigma=np.eye(4))
        for arguments, why in (
            (("--cfg", 2), "--cfg requires --task generate"),
            (("--task", "generate", "--metrics", "lpips"), "only for reconstructions"),
            (("--task", "generate", "--suite", "tokbench-256"), "cannot be combined with --task generate"),
            (("--task", "generate", "--cfg", "nan"), "--cfg nan: give a scale"),
            (("--task", "generate", "--cfg", "1e-7"), "give a scale with at most six digits"),
            (("--task", "generate", "--cfg", "1.23456789"), "give a scale with at most six digits"),
            (("--task", "generate", "--reference", stats), "give only one"),
            (("--reference-is", "a:b:c"), "require --reference"),
        ):
            done = cli("eval", "toy.p8", "--data", tiles, *arguments)
            assert done.exit_code == 2
            assert why in done.output
