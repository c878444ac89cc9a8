"""What commands say on stderr and how they list things: missing weights, near names, counts, folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tokbench.errors import UsageError, did_you_mean


def test_default_metrics_without_weights_are_one_closing_line(cli, photo_folder: Path, tmp_path: Path) -> None:
    command = ["eval", "jpeg.q50", "--data", photo_folder, "--limit", 2, "--size", 64, "--out", tmp_path]
    done = cli(*command)
    assert done.exit_code == 0, done.stderr
    assert done.stderr.splitlines()[-1] == (
        "lpips, rfid: weights missing; add --allow-download, or see tokbench weights"
    )
    assert "searched" not in done.stderr
    (path,) = tmp_path.glob("jpeg.q50/*.json")
    assert "which was not there" in json.loads(path.read_text())["skipped"]["rfid"]


def test_a_metric_that_was_asked_for_names_its_missing_file(cli, photo_folder: Path, tmp_path: Path) -> None:
    done = cli("eval", "jpeg.q50", "--data", photo_folder, "--metrics", "psnr,lpips", "--out", tmp_path)
    assert "skipped lpips: " in done.stderr and "alexnet" in done.stderr
    assert "weights missing;" not in done.stderr


def test_weights_are_one_line_per_file(cli) -> None:
    from tokbench.weights.registry import KNOWN_WEIGHTS

    done = cli("weights")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    for network, sources in KNOWN_WEIGHTS.items():
        for source in sources:
            (line,) = [line for line in lines if line.startswith(f"{source.file} ")]
            assert network in line
    assert len(lines) == len({line.split()[0] for line in lines})
    missing = cli("weights", "--missing").stdout.splitlines()
    assert missing[0] == lines[0] or missing[0].split() == lines[0].split()
    assert not any(line.endswith(" found") for line in missing) and any("alexnet-owt" in line for line in missing)


@pytest.mark.parametrize(
    ("asked", "known", "expected"),
    [
        ("TAEF2", ["taef2", "toy.p8"], "taef2"),
        ("jpeg", ["webp.q50", "jpeg.q50"], "jpeg.q50"),
        ("Toy.P8", ["toy.p8", "toy.p16"], "toy.p8"),
        ("toy.p8", ["toy.p8", "toy.p16"], "toy.p16"),
        ("samples", ["samples"], None),
        ("zzz", ["samples"], None),
        ("", ["samples"], None),
    ],
)
def test_near_names_ignore_case_and_never_repeat_the_name(asked: str, known: list[str], expected: str | None) -> None:
    assert did_you_mean(asked, known) == (f"did you mean '{expected}'? " if expected else "")


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["eval", "JPEG.q50x"], "jpeg.q50"),
        (["eval", "resize"], "resize.2"),
        (["eval", "TOY.p8"], "toy.p8"),
        (["eval", "identity", "--metrics", "PSNR"], "psnr"),
        (["eval", "identity", "--protocol", "ADM"], "adm"),
        (["eval", "identity", "--data", "Samples"], "samples"),
        (["list", "adapters", "--family", "JPG"], "jpeg"),
    ],
)
def test_near_names_of_adapters_metrics_protocols_and_data(
    cli, arguments: list[str], near: str, tmp_path: Path
) -> None:
    done = cli(*arguments, *(["--out", tmp_path] if arguments[0] == "eval" else []))
    assert done.exit_code == 2
    assert f"did you mean '{near}'?" in done.stderr


def test_adapters_that_cannot_run_here_are_listed_on_request(tmp_path: Path) -> None:
    from tokbench.cli.listing import adapters

    folder = tmp_path / "adapters" / "mine"
    folder.mkdir(parents=True)
    (folder / "adapter.py").touch()
    (folder / "ready.toml").write_text('summary = "needs nothing"')
    (folder / "new.toml").write_text('summary = "an idea"\n[training]\nsteps = 1')
    (folder / "trained.toml").write_text('summary = "done"\n[training]\nsteps = 1')
    (folder / "trained.safetensors").touch()
    (folder / "far.toml").write_text('[[weights.all]]\nfile = "far.pth"\nsha256 = "00"\nget = "somewhere"')
    (folder / "wrong.toml").write_text("= 1")

    def names(*arguments: object) -> list[str]:
        lines = adapters(tmp_path, *arguments)
        return [line.split()[0] for line in lines if line.startswith("mine.")]

    assert names("mine") == ["mine.ready", "mine.trained", "mine.wrong"]
    assert names("mine", False, True) == ["mine.far", "mine.new", "mine.ready", "mine.trained", "mine.wrong"]
    assert names("mine", True) == ["mine.trained"]
    assert names("jpeg") == []
    assert adapters(tmp_path, "mine")[-1].startswith("2 more adapters cannot run here")
    assert any("weights missing: far.pth" in line for line in adapters(tmp_path, "mine", False, True))
    with pytest.raises(UsageError, match="no family 'min'; did you mean 'mine'"):
        adapters(tmp_path, "min")


def test_filters_of_adapters_are_refused_elsewhere(cli) -> None:
    done = cli("list", "metrics", "--trained")
    assert done.exit_code == 2 and "list adapters" in done.stderr


@pytest.mark.parametrize("command", ["report", "view"])
def test_out_is_the_results_folder_and_site_the_site(
    cli, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("altair")
    seen = []
    monkeypatch.setattr("tokbench.report.site.build", lambda *arguments: seen.append(arguments) or arguments[1] / "x")
    monkeypatch.setattr("tokbench.report.serve.serve", lambda results, out, make, port, say: seen.append((out, make())))
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "x").touch()
    done = cli(command, "--out", tmp_path, "--site", tmp_path / "site")
    assert done.exit_code == 0, done.output
    assert seen[0][:2] == (tmp_path, tmp_path / "site")


def test_one_image_is_singular(cli, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    Image.new("RGB", (32, 32), (9, 99, 199)).save(tmp_path / "p" / "a.png")
    out = tmp_path / "out"
    done = cli("eval", "jpeg.q50", "--data", tmp_path / "p", "--metrics", "psnr", "--out", out)
    assert done.exit_code == 0 and ": 1 image of 32x32 px" in done.stdout
    (path,) = out.glob("jpeg.q50/*.json")
    assert ": 1 image of 32x32 px" in cli("show", path).stdout


def test_the_cache_lists_no_run_that_never_began(cli, private_cache: Path) -> None:
    for name, images in (("begun", 1), ("never", 0)):
        run = private_cache / "runs" / name
        run.mkdir(parents=True)
        (run / "about.json").write_text(
            json.dumps({"adapter": name, "dataset": "d", "images": 64, "metrics": ["psnr"]})
        )
        for number in range(images):
            (run / f"{number:07d}.npz").touch()
    done = cli("cache")
    assert "unfinished runs: 1" in done.stdout and "begun on d" in done.stdout
    assert "never" not in done.stdout
    assert "deleted 2 unfinished runs" in cli("cache", "clear", "--runs").stdout
