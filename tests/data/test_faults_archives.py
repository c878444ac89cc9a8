"""Archives and Parquet files that are odd, broken or made to harm, and reading in threads (docs/faults.md)."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import encode, noise_pixels, pack, red_levels, solid, write_parquet, zip_bytes
from PIL import Image

from tokbench.data.dataset import open_dataset
from tokbench.data.sources import parquet as parquet_module
from tokbench.data.sources import table as table_module
from tokbench.data.sources.manifest import Manifest
from tokbench.data.sources.open import open_source
from tokbench.errors import DataError, UnreadableImage
from tokbench.protocol.protocol import load_protocol

TOKBENCH = load_protocol("tokbench")


FORMS = ("a.zip", "a.tar")


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_names_that_cannot_be_printed_are_escaped(tmp_path: Path, form: str) -> None:
    members = {os.fsdecode(b"caf\xe9.png"): solid(1), "red\x1b[31m.png": solid(2), "ünïcode 漢.png": solid(3)}
    if form == "tar":
        path = pack(tmp_path / "a.tar", members)
    else:
        path = tmp_path / "folder"
        path.mkdir()
        try:
            for name, data in members.items():
                (path / name).write_bytes(data)
        except OSError as error:
            pytest.skip(f"this file system has no such names ({error.strerror})")
    found = red_levels(open_source(path))
    assert found == {r"caf\xe9.png": 1, r"red\x1b[31m.png": 2, "ünïcode 漢.png": 3}
    assert "".join(found).encode()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["../x.png", "/x.png", "a/../../x.txt", "C:/x.png", "c:x.png", r"a\..\x.png", "../"])
def test_archives_with_members_that_climb_out_are_refused(tmp_path: Path, form: str, name: str) -> None:
    path = pack(tmp_path / form, {"a.png": solid(), name: solid()})
    with pytest.raises(DataError, match=r"a\.(zip|tar): the member .*x?.* is outside the archive's folder") as caught:
        open_source(path)
    assert ascii(name) in str(caught.value)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("again", ["a.png", "./a.png"])
def test_archives_with_a_name_twice_are_refused(tmp_path: Path, form: str, again: str) -> None:
    path = pack(tmp_path / form, [("a.png", solid(1)), (again, solid(2))])
    with pytest.raises(DataError, match=r"two members have the name '.*a.png'"):
        open_source(path)


@pytest.mark.parametrize("form", FORMS)
def test_names_that_differ_in_case_are_two_images(tmp_path: Path, form: str) -> None:
    assert red_levels(open_source(pack(tmp_path / form, {"a.png": solid(1), "A.png": solid(2)}))) == {
        "A.png": 2,
        "a.png": 1,
    }


def test_a_member_without_a_name_is_left_aside(tmp_path: Path) -> None:
    """zipfile's own `is_dir` raises an IndexError for it in Python 3.11."""
    path = pack(tmp_path / "a.zip", {"a.png": solid(1), "b": b"x"})
    held = bytearray(path.read_bytes())
    for mark, length, name in ((b"PK\x03\x04", 26, 30), (b"PK\x01\x02", 28, 46)):
        start = held.rindex(mark)
        assert held[start + name : start + name + 1] == b"b"
        held[start + length] = 0
        del held[start + name]
    end = held.rindex(b"PK\x05\x06")
    size, offset = (int.from_bytes(held[end + at : end + at + 4], "little") - 1 for at in (12, 16))
    held[end + 12 : end + 20] = size.to_bytes(4, "little") + offset.to_bytes(4, "little")
    path.write_bytes(held)
    assert zipfile.ZipFile(path).namelist() == ["a.png", ""]
    assert open_source(path).names == ["a.png"]


def test_links_and_devices_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(solid(9))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (
            ("soft.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("pipe.png", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(secret)
            archive.addfile(info)
    found = red_levels(open_source(tmp_path / "a.tar"))
    assert "a link inside an archive" in found["soft.png"]
    assert "a link inside an archive" in found["hard.png"]
    assert "not a regular file" in found["pipe.png"]


def test_links_in_a_zip_are_not_followed(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("soft.png")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    assert "a link inside an archive" in red_levels(open_source(tmp_path / "a.zip"))["soft.png"]


def test_a_damaged_or_cut_off_tar_is_never_a_shorter_dataset(tmp_path: Path) -> None:
    """Python's tarfile takes a broken header, or a missing end, for the end."""
    whole = pack(tmp_path / "a.tar", {f"{i}.png": solid(i) for i in range(3)}).read_bytes()
    second = 1024  # where the second header begins
    zeros = whole[:second] + bytes(512) + whole[second + 512 :]
    spoiled = whole[: second + 9] + b"\xff" + whole[second + 10 :]
    for data in (whole[:second], whole[: second + 100], whole[: second + 700], zeros, spoiled, whole + whole):
        (tmp_path / "b.tar").write_bytes(data)
        with pytest.raises(DataError, match=r"b.tar is not a readable tar file"):
            open_source(tmp_path / "b.tar")
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(whole)[:-12])
    with pytest.raises(DataError, match=r"b.tar.gz is not a readable tar file"):
        open_source(tmp_path / "b.tar.gz")


def with_size(archive: bytes, field: bytes) -> bytes:
    """A tar whose first header claims another size."""
    made = bytearray(archive)
    made[124:136] = field
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made[:512])
    return bytes(made)


@pytest.mark.timeout(60)
def test_sizes_that_a_tar_claims_are_not_believed(tmp_path: Path) -> None:
    whole = pack(tmp_path / "a.tar", {"a.png": solid(), "b.png": solid()}).read_bytes()
    backwards = b"\xff" * 10 + b"\xfc\x00"  # -1024, for which some versions of Python turn in a circle
    for field in (backwards, b"77777777777\0"):
        (tmp_path / "b.tar").write_bytes(with_size(whole, field))
        with pytest.raises(DataError, match=r"b.tar is not a readable tar file"):
            open_source(tmp_path / "b.tar")


@pytest.mark.timeout(60)
def test_an_extended_header_cannot_lead_a_tar_backwards(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.png")
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("0.txt"))
        info.pax_headers = {"size": "-1536"}
        archive.addfile(info)
        archive.addfile(tarfile.TarInfo("b.png"))
    with pytest.raises(DataError, match=r"a.tar is not a readable tar file"):
        open_source(tmp_path / "a.tar")


def test_large_members_are_refused_before_they_are_read(tmp_path: Path) -> None:
    """A hole in the file, which takes no room on the disk."""
    info = tarfile.TarInfo("huge.png")
    info.size = (1 << 30) + 1
    rest = pack(tmp_path / "rest.tar", {"small.png": solid(7)}).read_bytes()
    with (tmp_path / "a.tar").open("wb") as file:
        file.write(info.tobuf())
        file.seek((1 << 30) + 512, os.SEEK_CUR)
        file.write(rest)
    tracemalloc.start()
    found = red_levels(open_source(tmp_path / "a.tar"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "huge.png: 1,073,741,825 bytes, over the limit" in found["huge.png"]
    assert found["small.png"] == 7
    assert peak < 64 << 20


@pytest.mark.slow
@pytest.mark.parametrize("claim", ["true", "small"])
def test_zip_bombs_stay_folded(tmp_path: Path, claim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stated size is true or false: of 256 MiB of zeros, no more than the stated size is unpacked."""
    path = pack(tmp_path / "a.zip", {"bomb.png": bytes(256 << 20), "b.png": solid(4)})
    if claim == "small":
        data = path.read_bytes()
        path.write_bytes(data.replace((256 << 20).to_bytes(4, "little"), (99).to_bytes(4, "little")))
    else:
        monkeypatch.setattr("tokbench.data.decode.MAX_BYTES", 1 << 20)
    tracemalloc.start()
    found = red_levels(open_source(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ("over the limit" if claim == "true" else "cannot be read from the zip") in found["bomb.png"]
    assert found["b.png"] == 4
    assert peak < 64 << 20


def test_zip_members_packed_in_ways_without_bounds_are_bad_images(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zip_bytes({"a.png": solid()}, zipfile.ZIP_BZIP2))
    found = red_levels(open_source(tmp_path / "a.zip"))
    assert "pack it stored or deflated" in found["a.png"]


def test_rows_without_a_name_or_bytes(tmp_path: Path) -> None:
    rows = [{"bytes": solid(1), "path": None}, {"bytes": None, "path": "b.png"}, None, {"bytes": solid(4), "path": ""}]
    found = red_levels(open_source(write_parquet(tmp_path / "a.parquet", rows)))
    assert list(found) == ["00000000", "b.png", "00000002", "00000003"]
    assert (found["00000000"], found["00000003"]) == (1, 4)
    for name in ("b.png", "00000002"):
        assert "this Parquet row has no bytes" in found[name]


def test_rows_with_one_path_are_numbered(tmp_path: Path) -> None:
    rows = [{"bytes": solid(i), "path": "image.png"} for i in range(3)]
    found = red_levels(open_source(write_parquet(tmp_path / "a.parquet", rows, row_group_size=2)))
    assert found == {"image.png": 0, "image (row 1).png": 1, "image (row 2).png": 2}


@pytest.mark.parametrize(
    ("rows", "type", "complaint"),
    [
        ([{"bytes": solid(), "path": 7}], None, "image.path has type int64, not text"),
        ([{"bytes": [1, 2], "path": "a"}], None, "image.bytes has type list"),
        ([{"bytes": "text", "path": "a"}], None, "image.bytes has type string, not bytes"),
        ([{"path": "a"}], None, "has no column of images"),
        (["text"], None, "has no column of images"),
    ],
)
def test_parquet_columns_of_another_type_are_refused(
    tmp_path: Path, rows: list[Any], type: pa.DataType | None, complaint: str
) -> None:
    with pytest.raises(DataError, match=rf"a.parquet.*{complaint}"):
        open_source(write_parquet(tmp_path / "a.parquet", rows, kind=type))


def test_paths_that_are_not_unicode_are_escaped(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    path = pa.array([b"caf\xe9.png"], pa.binary()).view(pa.string())
    column = pa.StructArray.from_arrays([pa.array([solid(3)]), path], fields=list(kind))
    pq.write_table(pa.table({"image": column}), tmp_path / "a.parquet")
    assert red_levels(open_source(tmp_path / "a.parquet")) == {r"caf\xe9.png": 3}


@pytest.mark.slow
def test_a_value_that_a_small_file_repeats_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 MiB, stored once and named by 500 rows: refused after the limit (here 16 MiB), and not at 500 MiB."""
    value = os.urandom(1 << 20)
    path = write_parquet(tmp_path / "a.parquet", [{"bytes": value, "path": str(i)} for i in range(500)],
                   dictionary_pagesize_limit=4 << 20)  # fmt: skip
    assert path.stat().st_size < 4 << 20
    monkeypatch.setattr(table_module, "MAX_BLOCK", 16 << 20)
    monkeypatch.setattr(parquet_module, "MAX_BYTES", 16 << 20)
    source = open_source(path)
    before = pa.total_allocated_bytes()
    pool = pa.default_memory_pool()
    with pytest.raises(UnreadableImage, match="write smaller row groups"):
        source.read(0)
    assert pa.total_allocated_bytes() - before < 64 << 20
    assert pool.max_memory() < 600 << 20
    with pytest.raises(UnreadableImage, match="write smaller row groups"):
        source.read(499)


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The 24 images in every form."""
    place = tmp_path_factory.mktemp("forms")
    rng = np.random.default_rng(0)
    members = {f"{i:02}.png": encode(Image.fromarray(noise_pixels(rng, 40, 40))) for i in range(24)}
    for form in ("folder", "a.zip", "a.tar", "a.tar.gz"):
        pack(place / form, members)
    rows = [{"bytes": data, "path": name} for name, data in members.items()]
    write_parquet(place / "a.parquet", rows, row_group_size=5)
    lines = []
    for name, data in members.items():
        crop = np.asarray(Image.open(io.BytesIO(data)).crop((4, 4, 20, 20)))
        lines.append(f'{name},file:folder/{name},"4,4,20,20",{hashlib.sha256(crop.tobytes()).hexdigest()}\n')
    (place / "m.csv").write_text("name,source,box,sha256\n" + "".join(lines))
    return {name: place / name for name in ("folder", "a.zip", "a.tar", "a.tar.gz", "a.parquet")}


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads change places as often as they can, so that a missing lock shows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.slow
@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize("form", ["folder", "a.zip", "a.tar", "a.tar.gz", "a.parquet", "manifest"])
def test_threads_read_the_same_pixels(forms: dict[str, Path], form: str) -> None:
    source = Manifest(forms["folder"].parent / "m.csv") if form == "manifest" else open_source(forms[form])
    serial = [np.asarray(source.open(position)) for position in range(len(source.names))]
    order = np.random.default_rng(0).permutation(np.tile(np.arange(len(serial)), 40)).tolist()
    with ThreadPoolExecutor(8) as pool:
        for position, image in zip(order, pool.map(source.open, order), strict=True):
            assert np.array_equal(np.asarray(image), serial[position]), source.names[position]


def test_a_bad_member_stops_nothing(tmp_path: Path) -> None:
    for form in FORMS:
        path = pack(tmp_path / form, {"a.png": solid(1), "b.png": b"", "c.png": solid(3)})
        dataset = open_dataset(str(path), TOKBENCH)
        assert [name for batch in dataset.batches(4) for name in batch.names] == ["a.png", "c.png"]
        assert [name for name, _ in dataset.unreadable] == ["b.png"]
