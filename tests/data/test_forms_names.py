"""Archives and names of other systems, and messages where there are no images."""

from __future__ import annotations

import unicodedata
import zipfile
from pathlib import Path

import pytest
from image_files import pack, red_levels, solid, write_files

from tokbench.data.dataset import open_dataset
from tokbench.data.sources.open import open_source
from tokbench.errors import DataError
from tokbench.protocol.protocol import TOKBENCH

# Names of other systems


def test_a_zip_of_windows_is_read_with_its_folders(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as archive:
        for name, level in (("val\\a\\0.png", 1), ("val\\b\\1.png", 2), ("val\\@eaDir\\2.png", 3), ("val\\b\\", 0)):
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, solid(level) if not name.endswith("\\") else b"")
    assert red_levels(open_source(tmp_path / "windows.zip")) == {"val/a/0.png": 1, "val/b/1.png": 2}


class _WithoutFlag(zipfile.ZipInfo):
    """A member whose name is stored as bytes in some encoding, without the flag for UTF-8."""

    raw: bytes

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.raw, self.flag_bits & ~0x800


def zip_without_flags(path: Path, names: dict[str, bytes], encoding: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in names.items():
            info = _WithoutFlag("x")
            info.filename, info.raw = name, name.encode(encoding)
            archive.writestr(info, content)
    return path


def test_names_of_a_zip_without_the_flag_for_utf8_are_decoded(tmp_path: Path) -> None:
    """macOS writes UTF-8 without its flag, which gave names like 'Caf├⌐.png'."""
    path = zip_without_flags(tmp_path / "a.zip", {"Café.png": solid(1), "パ.png": solid(2)}, "utf-8")
    assert red_levels(open_source(path)) == {"Café.png": 1, "パ.png": 2}
    old = zip_without_flags(tmp_path / "old.zip", {"Ä.png": solid(1)}, "cp437")
    assert open_source(old).names == ["Ä.png"]


@pytest.mark.parametrize(("encoding", "name"), [("shift_jis", "ソ.png"), ("big5", "功.png"), ("gbk", "昞.png")])
def test_a_zip_with_backslashes_in_an_unknown_encoding_is_refused(tmp_path: Path, encoding: str, name: str) -> None:
    """The second byte of these characters is that of a backslash: `.png` in a folder would be a hidden file."""
    assert b"\\" in name.encode(encoding)
    path = zip_without_flags(tmp_path / "a.zip", {"a.png": solid(), name: solid()}, encoding)
    with pytest.raises(DataError, match=r"a.zip: the name of its member .* has a backslash and an unknown encoding"):
        open_source(path)


# What lies there instead of images


@pytest.mark.parametrize("form", ["folder", "a.zip", "a.tar"])
def test_no_images_says_what_lies_there_instead(tmp_path: Path, form: str) -> None:
    members = {"a.txt": b"text", "sub/b.txt": b"text", "c.mp4": b"film", "README": b"text"}
    path = pack(tmp_path / form, members)
    with pytest.raises(
        DataError, match=r"no images found; it contains 2 .txt files, 1 file without a suffix, 1 .mp4 file$"
    ):
        open_dataset(str(path), TOKBENCH)


def test_no_images_says_what_to_give(tmp_path: Path) -> None:
    write_files(tmp_path / "lists" / "sub", {"val.txt": b"0.png\n"})
    with pytest.raises(DataError, match=r"1 .txt file; if it lists the paths of images, give --data .*/sub/val.txt"):
        open_dataset(str(tmp_path / "lists"), TOKBENCH)
    pack(tmp_path / "zips" / "a.zip", {"a.json": b"{}"})
    with pytest.raises(DataError, match=r"no images found; it contains 1 zip file without images"):
        open_dataset(str(tmp_path / "zips"), TOKBENCH)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no images found; it contains nothing$"):
        open_dataset(str(tmp_path / "empty"), TOKBENCH)
    write_files(tmp_path / "hidden", {".cache/0.png": solid()})
    with pytest.raises(DataError, match=r"contains nothing but hidden entries, which are not read$"):
        open_dataset(str(tmp_path / "hidden"), TOKBENCH)


def test_names_in_both_unicode_forms_are_read(tmp_path: Path) -> None:
    names = {unicodedata.normalize(form, f"é{form}.png"): solid() for form in ("NFC", "NFD")}
    for form in ("folder", "a.zip", "a.tar"):
        assert open_source(pack(tmp_path / form, names)).names == sorted(names)
