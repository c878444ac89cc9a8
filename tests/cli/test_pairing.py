"""How `images:PATH` finds the original of each reconstruction: by name in any form, or by order."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import encode, noise_pixels, write_files, write_parquet
from PIL import Image

from tokbench.errors import AdapterError
from tokbench.tokenizers.builtin.images import ImageFolder, stem

RNG = np.random.default_rng(0)
PICTURES = [Image.fromarray(noise_pixels(RNG, 16, 16)).resize((32, 32), Image.Resampling.BICUBIC) for _ in range(12)]


def png(number: int, **options: Any) -> bytes:
    return encode(PICTURES[number], **options)


@pytest.fixture
def measured(cli, tmp_path: Path):
    """Evaluates reconstructions, and returns the result's facts, or the messages if it failed."""

    def run(made: Path, data: Path, *options: str) -> dict[str, Any] | str:
        out = tmp_path / "out"
        done = cli("eval", f"images:{made}", "--data", data, "--metrics", "psnr", "--json", "--out", out, *options)
        return json.loads(done.stdout)[0] if done.exit_code == 0 else done.stderr

    return run


def exact(facts: dict[str, Any] | str) -> bool:
    """Whether every reconstruction was compared with its own original."""
    assert isinstance(facts, dict), facts
    return facts["metrics"]["exact"]["value"] == facts["num_images"] > 0


NAMES = ("Café", "über", "パ")


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_pair_in_any_unicode_form(tmp_path: Path, measured, forms: tuple[str, str]) -> None:
    for folder, form in zip(("data", "made"), forms, strict=True):
        names = [unicodedata.normalize(form, name) for name in NAMES]
        write_files(tmp_path / folder, {f"{name}.png": png(i) for i, name in enumerate(names)})
    assert exact(measured(tmp_path / "made", tmp_path / "data"))


def test_only_suffixes_of_images_are_left_aside(tmp_path: Path, measured) -> None:
    rows = [{"bytes": png(i), "path": f"frame.{i:04d}"} for i in range(4)]
    write_parquet(tmp_path / "frames.parquet", rows)
    write_files(tmp_path / "made", {f"frame.{i:04d}.PNG": png(i) for i in range(4)})
    assert exact(measured(tmp_path / "made", tmp_path / "frames.parquet"))
    assert [stem(name) for name in ("a/b.c.jpeg", "v1.5/x", ".png", "a.heic")] == ["a/b.c", "v1.5/x", ".png", "a"]


class _WithoutFlag(zipfile.ZipInfo):
    raw: bytes

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.raw, self.flag_bits & ~0x800


@pytest.mark.parametrize(("encoding", "names"), [("gbk", ("猴子", "测试")), ("cp1251", ("Кот", "Пёс"))])
def test_names_of_a_zip_in_an_old_encoding_pair(
    tmp_path: Path, measured, encoding: str, names: tuple[str, str]
) -> None:
    write_files(tmp_path / "data", {f"{name}.png": png(i) for i, name in enumerate(names)})
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as archive:
        for i, name in enumerate(names):
            info = _WithoutFlag("x")
            info.filename, info.raw = f"{name}.png", f"{name}.png".encode(encoding)
            archive.writestr(info, png(i))
    assert exact(measured(tmp_path / "made.zip", tmp_path / "data"))


def test_reconstructions_pair_by_order(tmp_path: Path, measured, cli) -> None:
    """Scripts write one .npz, or numbered files, in the order of the dataset."""
    data = write_files(tmp_path / "data", {f"n0{i % 2}/img{i:02}.jpg": png(i) for i in range(12)})
    order = sorted(range(12), key=lambda i: (i % 2, i))
    np.savez(tmp_path / "made.npz", np.stack([np.asarray(PICTURES[i]) for i in order]))
    numbered = write_files(tmp_path / "numbered", {f"{place}.png": png(i) for place, i in enumerate(order)})
    for made in (tmp_path / "made.npz", numbered):
        refused = measured(made, data)
        assert "if they are in the order of the images, give --pair order" in refused
        facts = measured(made, data, "--pair", "order")
        assert exact(facts) and facts["provenance"]["adapter"]["pair"] == "order"
        assert exact(measured(made, data, "--pair", "order", "--limit", "5"))
        assert exact(measured(made, data, "--pair", "order", "--limit", "5", "--first"))
        again = cli("check", "--data", data, "--against", tmp_path / "out")
        assert again.exit_code == 0, again.output
        shutil.rmtree(tmp_path / "out")
    some = [order[i * 12 // 5] for i in range(5)]
    np.savez(tmp_path / "some.npz", np.stack([np.asarray(PICTURES[i]) for i in some]))
    assert exact(measured(tmp_path / "some.npz", data, "--pair", "order", "--limit", "5"))
    refused = measured(tmp_path / "some.npz", data, "--pair", "order")
    assert "holds 5 reconstructions, and the dataset has 12 images; with --pair order" in refused


def test_numbered_files_that_order_pairs_with_other_names_are_refused(tmp_path: Path, measured) -> None:
    """As texts, frame_10 comes before frame_2; as numbers, after it."""
    data, made = (write_files(tmp_path / side, {f"frame_{i}.png": png(i) for i in range(12)}) for side in ("d", "m"))
    refused = measured(made, data, "--pair", "order")
    assert "--pair order pairs frame_10.png with frame_2.png; leave out --pair order" in refused
    assert exact(measured(made, data))


def test_other_folders_are_named_as_the_difference(tmp_path: Path, measured) -> None:
    data = write_files(tmp_path / "data", {f"val/a/{i}.png": png(i) for i in range(3)})
    made = write_files(tmp_path / "made", {f"out/{i}.png": png(i) for i in range(2)})
    assert "only their folders differ: give the folder at the same level" in measured(made, data)


def test_two_files_of_one_stem_are_refused_by_name_and_taken_by_order(tmp_path: Path) -> None:
    made = write_files(tmp_path / "made", {"a.jpg": png(0), "a.png": png(1)})
    with pytest.raises(AdapterError, match=r"a.jpg and a.png are both reconstructions of 'a'; keep one"):
        ImageFolder("images:made", made).bind_dataset(["a.png"], ["a.png"])


def links(tmp_path: Path) -> Path:
    """Data as files, and reconstructions as links that leave their folder."""
    write_files(tmp_path / "data", {f"{i}.png": png(i) for i in range(3)})
    (tmp_path / "made").mkdir()
    for i in range(3):
        write_files(tmp_path / "blobs", {f"{i}f0": png(i)})
        os.symlink(f"../blobs/{i}f0", tmp_path / "made" / f"{i}.png")
    return tmp_path / "made"


def test_links_are_followed_on_request(tmp_path: Path, measured, cli) -> None:
    made = links(tmp_path)
    assert "--follow-links" in measured(made, tmp_path / "data")
    assert exact(measured(made, tmp_path / "data", "--follow-links"))
    out = ("--out", tmp_path / "out")
    assert "no image could be read" in cli("eval", "jpeg.q50", "--data", made, "--metrics", "psnr", *out).stderr
    done = cli("eval", "jpeg.q50", "--data", made, "--metrics", "psnr", "--follow-links", *out)
    assert done.exit_code == 0, done.output
    done = cli("check", "jpeg.q50", "--data", made, "--follow-links", "--against", tmp_path / "out")
    assert done.exit_code == 0, done.output
    done = cli("audit", "jpeg.q50", "--data", made, "--metrics", "psnr", "--follow-links", "--json")
    assert done.exit_code == 0, done.output


def test_other_exif_rotations_are_named(tmp_path: Path, measured) -> None:
    """One side was rotated by a program that applies the tag, which tokbench ignores."""
    exif = Image.Exif()
    exif[0x0112] = 6
    rotated = {f"{i}.jpg": png(i, kind="JPEG", exif=exif, quality=95) for i in range(2)}
    upright = {f"{i}.jpg": png(i, kind="JPEG", quality=95) for i in range(2)} | {"2.jpg": png(2)}
    for name, members in (("tagged", rotated | {"2.jpg": png(2)}), ("plain", upright)):
        write_files(tmp_path / name, members)
    for data, made, values in (("tagged", "plain", "6 and 1"), ("plain", "tagged", "1 and 6")):
        facts = measured(tmp_path / made, tmp_path / data)
        (warning,) = (one for one in facts["warnings"] if one["kind"] == "exif_rotation")
        assert warning["count"] == 2 and warning["of"] == 3
        assert f"different EXIF orientations (0.jpg: {values})" in warning["text"]
    for same in ("tagged", "plain"):
        facts = measured(tmp_path / same, tmp_path / same)
        assert "exif_rotation" not in {one["kind"] for one in facts["warnings"]}
