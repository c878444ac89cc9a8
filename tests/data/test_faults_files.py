"""Folders and manifests that are odd, broken or made to harm (docs/faults.md)."""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from image_files import red_levels, solid
from PIL import Image

from tokbench.data.decode import open_rgb
from tokbench.data.reading import ReadOptions
from tokbench.data.sources import base as source_module
from tokbench.data.sources.base import Source
from tokbench.data.sources.manifest import Manifest
from tokbench.data.sources.open import open_source, sort_by
from tokbench.errors import DataError


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder with links of every kind, and images outside it."""
    outside, inside = tmp_path / "outside", tmp_path / "data"
    for folder in (outside / "deep", inside / "sub"):
        folder.mkdir(parents=True)
    (outside / "o.png").write_bytes(solid(1))
    (outside / "deep" / "p.png").write_bytes(solid(2))
    (inside / "sub" / "i.png").write_bytes(solid(3))
    (inside / "alias.png").symlink_to("sub/i.png")
    (inside / "leaves.png").symlink_to("../outside/o.png")
    (inside / "nothing.png").symlink_to("absent.png")
    (inside / "circle.png").symlink_to("circle.png")
    (inside / "again").symlink_to("sub")
    (inside / "sub" / "up").symlink_to("..")
    (inside / "away").symlink_to("../outside")
    (outside / "deep" / "back").symlink_to("../../outside")
    (outside / "home").symlink_to("../data")
    return inside


def test_links_are_read_inside_and_refused_where_they_leave(linked: Path) -> None:
    found = red_levels(open_source(linked))
    assert list(found) == ["alias.png", "away", "circle.png", "leaves.png", "nothing.png", "sub/i.png"]
    assert found["alias.png"] == found["sub/i.png"] == 3
    for name in ("away", "leaves.png"):
        assert "leaves the dataset's folder" in found[name]
        assert "--follow-links" in found[name]
    for name in ("circle.png", "nothing.png"):
        assert "not a regular file" in found[name]


def test_followed_links_list_every_image_once(linked: Path) -> None:
    found = red_levels(open_source(linked, ReadOptions(follow_links=True)))
    assert {name: level for name, level in found.items() if isinstance(level, int)} == {
        "alias.png": 3, "away/deep/p.png": 2, "away/o.png": 1, "leaves.png": 1, "sub/i.png": 3,
    }  # fmt: skip


def test_a_folder_may_itself_be_given_through_a_link(linked: Path, tmp_path: Path) -> None:
    (tmp_path / "given").symlink_to(linked)
    assert red_levels(open_source(tmp_path / "given")) == red_levels(open_source(linked))


def test_pipes_and_folders_with_image_names(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.png" / "a.png").write_bytes(solid(5))
    assert red_levels(open_source(tmp_path)) == {
        "folder.png/a.png": 5,
        "pipe.png": "pipe.png: not a regular file, or a broken link; remove it",
    }
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(DataError, match="neither a folder nor a regular file"):
        open_source(tmp_path / "pipe.zip")


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions do not bind the superuser, so the system's answer is put in its place."""
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.png").write_bytes(solid(1))
    listed = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = red_levels(open_source(tmp_path))
    assert found["a.png"] == 1
    assert "cannot be listed (Permission denied)" in str(found["locked/"])


def test_order_does_not_depend_on_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, name in enumerate(("b/1.png", "a.png", "B.png", "b.png", "a/2.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(solid(i))
    expected = ["B.png", "a.png", "a/2.png", "b.png", "b/1.png"]
    listed = os.scandir

    class Backwards:
        def __init__(self, path: Any) -> None:
            with listed(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> Any:
            return iter(self.entries)

        def __exit__(self, *error: object) -> None: ...

    assert open_source(tmp_path).names == expected
    monkeypatch.setattr(os, "scandir", Backwards)
    assert open_source(tmp_path).names == expected


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("a,file:../x.png,,00", "is outside its folder"),
        ("a,file:/etc/x.png,,00", "is outside its folder"),
        ('a,file:x.png,"1,2,3",00', "must be left,top,right,bottom"),
        ("a,file:x.png,,00\na,file:y.png,,00", "the same name"),
        ("a,file:x.png", "every row must give"),
    ],
)
def test_manifests_that_cannot_be_meant_are_refused(tmp_path: Path, row: str, complaint: str) -> None:
    (tmp_path / "m.csv").write_text(f"name,source,box,sha256\n{row}\n")
    with pytest.raises(DataError, match=rf"m.csv.*{complaint}"):
        Manifest(tmp_path / "m.csv")


def test_boxes_outside_their_photo_and_absent_files_are_bad_images(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(solid())
    (tmp_path / "m.csv").write_text(
        'name,source,box,sha256\na,file:x.png,"0,0,99999,99999",00\nb,file:y.png,,00\nc,file:x.png,,00\n'
    )
    found = red_levels(Manifest(tmp_path / "m.csv"))
    assert "is not inside file:x.png" in found["a"]
    assert "restore the dataset's folder" in found["b"]
    assert "not those of the manifest" in found["c"]


def test_threads_share_one_decoded_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.png").write_bytes(solid())
    digest = hashlib.sha256(bytes(48)).hexdigest()
    lines = [f'{i},file:x.png,"0,0,4,4",{digest}\n' for i in range(8)]
    (tmp_path / "m.csv").write_text("name,source,box,sha256\n" + "".join(lines))
    decoded = []

    def decode(data: bytes, name: str) -> Image.Image:
        decoded.append(name)
        time.sleep(0.05)
        return open_rgb(data, name)

    monkeypatch.setattr(source_module, "open_rgb", decode)
    source = Manifest(tmp_path / "m.csv")
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(source.open, range(8)))) == 8
    assert len(decoded) == 1


def test_orders_with_odd_digits() -> None:
    class Names(Source):
        def __init__(self, names: list[str]) -> None:
            self.names = names

        def read(self, position: int) -> bytes:
            return b""

        def listing(self) -> list[tuple[str, int]]:
            return []

    source = Names(["10", "9" * 5000, "²", "9"])
    sort_by(source, "(.+)")
    assert source.names == ["9", "10", "9" * 5000, "²"]
