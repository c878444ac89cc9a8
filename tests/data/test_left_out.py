"""Which files count: hidden and service entries never, every suffix that is read, and a count of pictures left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from image_files import pack, solid, write_files, write_parquet

from tokbench.cli import listing
from tokbench.data.dataset import open_dataset
from tokbench.data.reading import ReadOptions
from tokbench.data.sources.open import open_source
from tokbench.errors import DataError, ResultError
from tokbench.protocol.protocol import TOKBENCH
from tokbench.results import markdown
from tokbench.results.result import load
from tokbench.results.schema import check


@pytest.fixture(autouse=True)
def without_plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether pillow-heif is installed does not matter here."""
    monkeypatch.setattr("tokbench.data.decode.heif_is_readable", lambda: False)


FORMS = ("folder", "a.zip", "a.tar", "a.tar.gz")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "name",
    [
        ".ipynb_checkpoints/0-checkpoint.png", "sub/.ipynb_checkpoints/0.png", ".Trash-1000/files/0.png",
        "@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg", "a/@eaDir/0.png", "__MACOSX/0.png", "__MACOSX/._0.png",
        "$RECYCLE.BIN/S-1/0.png", "System Volume Information/0.png", "lost+found/0.png", "#recycle/0.png",
        "#Recycle/0.png", ".0.png", "._0.png", ".git/x/0.png", ".hidden/0",
    ],
)  # fmt: skip
def test_hidden_and_service_entries_never_count(tmp_path: Path, form: str, name: str) -> None:
    path = pack(tmp_path / form, {"0.png": solid(), "sub/1.png": solid(), name: solid()})
    source = open_source(path)
    assert source.names == ["0.png", "sub/1.png"]
    assert source.left_out == {}


def test_the_folder_itself_may_be_hidden(tmp_path: Path) -> None:
    path = write_files(tmp_path / ".cache" / "lost+found" / "folder", {"0.png": solid(), ".1.png": solid()})
    assert open_source(path).names == ["0.png"]


def test_hidden_shards_never_count(tmp_path: Path) -> None:
    """macOS writes such files beside each file on other file systems: `._x.parquet` was read as a broken shard."""
    write_parquet(tmp_path / "x.parquet", [{"bytes": solid(), "path": "a.png"}])
    (tmp_path / "._x.parquet").write_bytes(b"\0\5\x16\7")
    assert open_source(tmp_path).names == ["a.png"]


READ = {
    "jfif": "JPEG", "pjpeg": "JPEG", "pjp": "JPEG", "JFIF": "JPEG", "j2k": "JPEG2000", "jpc": "JPEG2000",
    "jpx": "JPEG2000", "apng": "PNG", "dib": "BMP", "pbm": "PPM", "mpo": "MPO", "avifs": "AVIF", "JPG": "JPEG",
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_suffix_of_what_is_read_counts(tmp_path: Path, form: str) -> None:
    made = {f"{i:02}.{suffix}": solid(40, kind) for i, (suffix, kind) in enumerate(READ.items())}
    made["03.j2k"] = solid(40, "JPEG2000", no_jp2=True)
    source = open_source(pack(tmp_path / form, made))
    assert source.names == sorted(made)
    for position in range(len(made)):
        assert np.abs(np.asarray(source.open(position)).astype(int) - 40).max() <= 3


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
JXL = b"\xff\x0a" + bytes(64)
TEXT = {"readme": b"PNG files of 2020", "notes.txt": solid(), "0.json": b"{}", "labels.csv": b"a,b\n",
        "Makefile": b"", "run.dat": b"BM of something", "empty": b"", "x.npy": b"\x93NUMPY"}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_pictures_that_are_left_out_are_counted(tmp_path: Path, form: str) -> None:
    odd = {"a.heic": HEIC, "sub/b.HEIC": HEIC, "c.dng": b"", "d.svg": b"<svg/>"}
    nameless = {"e": solid(), "f.0001": solid(kind="JPEG"), "g.image": solid(kind="WEBP"), "h": HEIC, "i": JXL,
                "j": solid(kind="GIF"), "k": solid(kind="TIFF"), "l": solid(kind="BMP"),
                "m": solid(kind="AVIF")}  # fmt: skip
    source = open_source(pack(tmp_path / form, {"0.png": solid()} | odd | nameless | TEXT))
    assert source.names == ["0.png"]
    expected = {".heic": 2, ".dng": 1, ".svg": 1}
    if form != "a.tar.gz":  # a compressed tar is not read twice: suffixes alone tell
        expected |= {"(none)": 8, ".image": 1}
    assert source.left_out == expected


def test_those_of_another_split_are_not_counted(tmp_path: Path) -> None:
    path = write_files(tmp_path / "folder", {"train/0.png": solid(), "val/1.png": solid(), "val/2.heic": HEIC})
    assert open_dataset(str(path), TOKBENCH, reading=ReadOptions(split="val")).left_out == {".heic": 1}
    assert open_dataset(str(path), TOKBENCH, reading=ReadOptions(split="train")).left_out == {}


def test_a_folder_of_nothing_else_says_so(tmp_path: Path) -> None:
    path = write_files(tmp_path / "folder", {"0.heic": HEIC, "1": solid()})
    with pytest.raises(DataError, match=r"no images found; 2 files that look like images: 1 without a suffix, 1 .heic"):
        open_dataset(str(path), TOKBENCH)


def test_links_are_not_followed_to_see_what_they_are(tmp_path: Path) -> None:
    path = write_files(tmp_path / "folder", {"0.png": solid()})
    (tmp_path / "secret").write_bytes(solid())
    (path / "leads").symlink_to(tmp_path / "secret")
    assert open_source(path).left_out == {}
    assert open_source(path, ReadOptions(follow_links=True)).left_out == {"(none)": 1}


def test_a_result_its_table_and_the_command_name_them(tmp_path: Path, cli) -> None:
    pictures = {"0.png": solid(), "1.png": solid(99), "2.heic": HEIC, "3.heic": HEIC, "4": solid()}
    path = write_files(tmp_path / "folder", pictures | TEXT)
    done = cli("eval", "jpeg.q50", "resize.2", "--data", path, "--metrics", "psnr", "--out", tmp_path / "res")
    assert done.exit_code == 0, done.stderr
    ignored = "3 files that look like images: 2 .heic, 1 without a suffix"
    remedy = "convert or rename them; pip install pillow-heif reads .heic and .heif"
    assert done.stderr.count(f"ignored {ignored}; {remedy}") == 1
    assert f"Left out: {ignored}." in done.stdout
    (file,) = tmp_path.glob("res/jpeg.q50/*.json")
    result = load(file)
    assert result.provenance["data"]["left_out"] == {".heic": 2, "(none)": 1}
    assert ignored in markdown.legend([result]) and ignored in listing.show(result)
    for entry in path.iterdir():
        if entry.name in ("2.heic", "3.heic", "4"):
            entry.unlink()
    again = cli("eval", "jpeg.q50", "--data", path, "--metrics", "psnr", "--out", tmp_path / "res")
    assert "eft out" not in again.output
    facts = json.loads(file.read_text())
    assert "left_out" not in facts["provenance"]["data"]


@pytest.mark.parametrize("wrong", [[], "3", {".heic": "2"}, {".heic": -1}, {".heic": 1.5}, {".heic": True}])
def test_a_result_with_another_count_is_refused(tmp_path: Path, cli, wrong: object) -> None:
    path = write_files(tmp_path / "folder", {"0.png": solid(), "1.png": solid(99)})
    assert cli("eval", "jpeg.q50", "--data", path, "--metrics", "psnr", "--out", tmp_path / "res").exit_code == 0
    (file,) = tmp_path.glob("res/jpeg.q50/*.json")
    facts = json.loads(file.read_text())
    check(facts, file)
    facts["provenance"]["data"]["left_out"] = wrong
    with pytest.raises(ResultError, match=r"provenance\.data\.left_out\S* must be an (object|integer)"):
        check(facts, file)


def test_samples_that_are_left_out_are_named(tmp_path: Path, cli) -> None:
    """gFID depends on how many samples there are: those of an unread format are missing."""
    references = write_files(tmp_path / "references" / "folder", {f"{i}.png": solid(i) for i in range(4)})
    made = {f"{i}.png": solid(2 * i) for i in range(3)} | {"3.heic": HEIC}
    samples = write_files(tmp_path / "samples" / "folder", made)
    done = cli("eval", f"images:{samples}", "--task", "generate", "--data", references, "--metrics", "gfid",
               "--out", tmp_path / "res")  # fmt: skip
    assert "ignored 1 file that looks like an image: 1 .heic" in done.stderr
