"""The commands that show results, adapters and weights."""

from __future__ import annotations

from pathlib import Path

import pytest

FAST = "psnr,rate"


def test_leaderboard_is_the_same_byte_for_byte(cli, photo_folder: Path, tmp_path: Path) -> None:
    adapters = ["identity", "toy.p8", "jpeg.q50"]
    assert (
        cli("eval", *adapters, "--data", photo_folder, "--metrics", "psnr,rate,codebook", "--out", tmp_path).exit_code
        == 0
    )
    contents = []
    for _ in range(2):
        assert cli("leaderboard", "--out", tmp_path).exit_code == 0
        contents.append({path.name: path.read_bytes() for path in (tmp_path / "leaderboard").iterdir()})
    assert contents[0] == contents[1]
    (csv,) = (tmp_path / "leaderboard").glob("*-*.csv")
    lines = csv.read_text().splitlines()
    assert lines[0].startswith("adapter,kind,num_images,tokens_per_image")
    assert [line.split(",")[0] for line in lines[1:]] == ["toy.p8", "jpeg.q50", "identity"]


def test_leaderboard_without_results_says_so(cli, tmp_path: Path) -> None:
    done = cli("leaderboard", "--out", tmp_path)
    assert done.exit_code == 1
    assert "contains no results" in done.stderr


def test_show(cli, photo_folder: Path, tmp_path: Path) -> None:
    cli("eval", "jpeg.q50", "--data", photo_folder, "--metrics", "psnr,rate,codebook", "--out", tmp_path)
    (path,) = tmp_path.glob("jpeg.q50/*.json")
    done = cli("show", path)
    assert done.exit_code == 0
    for part in ("PSNR", "[", "skipped codebook", "sha256", "tokbench"):
        assert part in done.stdout


@pytest.mark.finds
@pytest.mark.parametrize("what", ["adapters", "datasets", "metrics", "protocols"])
def test_lists(cli, what: str) -> None:
    done = cli("list", what)
    assert done.exit_code == 0
    expected = {"adapters": "toy.p8", "datasets": "samples", "metrics": "rfid_768", "protocols": "tokbench"}
    assert expected[what] in done.stdout


def test_weights_lists_every_network_and_says_where(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokbench.weights.registry import KNOWN_WEIGHTS

    monkeypatch.setenv("TOKBENCH_WEIGHTS", str(tmp_path / "here"))
    done = cli("weights", "--details")
    assert done.exit_code == 0
    for sources in KNOWN_WEIGHTS.values():
        for source in sources:
            assert source.file in done.stdout
            assert source.sha256 in done.stdout
    assert str(tmp_path / "here") in done.stdout
    assert "rfid, rfid_768" in done.stdout
