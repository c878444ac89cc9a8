"""`images:FOLDER` on the command line: reconstructions by another program."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from PIL import Image


def test_images_adapter(cli, photo_folder: Path, tmp_path: Path) -> None:
    images = tmp_path / "made"
    shutil.copytree(photo_folder, images)
    for file in images.rglob("*.png"):
        Image.open(file).save(file.with_suffix(".jpg"), quality=60)
        file.unlink()
    command = [
        "eval",
        f"images:{images}",
        "--data",
        photo_folder,
        "--metrics",
        "psnr,rate",
        "--json",
        "--out",
        tmp_path / "out",
    ]
    (result,) = json.loads(cli(*command).stdout)
    assert 20 < result["metrics"]["psnr"]["value"] < 45
    assert "'tokens'" in result["skipped"]["rate"]
    Image.new("RGB", (10, 10)).save(images / "photo0.jpg")
    assert "photo0.jpg is 10x10" in cli(*command).stderr
    (images / "photo1.jpg").unlink()
    Image.new("RGB", (256, 256)).save(images / "stranger.jpg")
    done = cli(*command)
    assert done.exit_code == 1
    assert "1 images have no reconstruction: photo1.png" in done.stderr
    assert "1 reconstructions belong to no image: stranger.jpg" in done.stderr


def test_images_with_two_originals_of_one_stem_are_refused(cli, tmp_path: Path) -> None:
    for folder in ("data", "made"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (32, 32)).save(tmp_path / folder / "a.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "data" / "a.bmp")
    done = cli(
        "eval", f"images:{tmp_path / 'made'}", "--data", tmp_path / "data", "--metrics", "psnr", "--out", tmp_path / "o"
    )
    assert done.exit_code == 1
    assert "differ by suffix only" in done.stderr
