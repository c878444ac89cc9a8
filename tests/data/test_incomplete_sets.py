"""Sets of files of which some are missing, and data sets that are not read beside a picture."""

from __future__ import annotations

import shlex
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from image_files import solid, write_files, write_parquet

from tokbench.data.reading import ReadOptions
from tokbench.data.sources.open import open_source
from tokbench.data.sources.unread import begins_as_tfrecord
from tokbench.errors import DataError


def shards(root: Path, names: Sequence[str]) -> Path:
    for name in names:
        write_parquet(root / name, [{"bytes": solid(), "path": f"{name}.png"}])
    return root


def numbered(present: Sequence[int], total: int = 4, begin: str = "val", end: str = ".parquet") -> list[str]:
    return [f"{begin}-{at:05}-of-{total:05}{end}" for at in present]


@pytest.mark.parametrize(
    ("present", "total", "missing"),
    [
        ([0, 2], 4, "val-00001-of-00004.parquet, val-00003-of-00004.parquet"),
        ([1, 2, 3], 4, "val-00000-of-00004.parquet"),
        ([1, 2, 4], 4, "val-00003-of-00004.parquet"),  # counted from 1
        ([0], 12, "val-00001-of-00012.parquet, val-00002-of-00012.parquet, val-00003-of-00012.parquet and 8 more"),
    ],
)
def test_a_set_that_lacks_files_is_refused_and_what_is_there_can_be_given(
    tmp_path: Path, present: list[int], total: int, missing: str
) -> None:
    root = shards(tmp_path / "set", numbered(present, total))
    for given in (root, f"{root}/*.parquet", f"{root}/val-*-of-*", f"{tmp_path}/se*"):
        with pytest.raises(DataError) as caught:
            open_source(given)
        assert f"contains {len(present)} of {total} files val-*-of-{total:05}; missing: {missing}. Fetch" in str(
            caught.value
        )
    alone = shlex.split(str(caught.value))[-1]
    assert len(open_source(alone).names) == len(present)
    assert len(open_source(root / numbered(present, total)[0]).names) == 1


def test_files_that_no_pattern_tells_apart_from_missing_ones(tmp_path: Path) -> None:
    root = shards(tmp_path / "set", numbered([0, 11], 12))
    with pytest.raises(DataError, match="or give a pattern that matches only existing files"):
        open_source(root)
    assert len(open_source(f"{root}/val-00000*").names) == 1


def test_missing_files_of_the_chosen_split_alone_matter(tmp_path: Path) -> None:
    """Names on the Hugging Face hub may end in a hash of each file."""
    val = [f"val-{at:05}-of-00003-{at:016x}.parquet" for at in (0, 2)]
    root = shards(tmp_path / "set", [*val, *numbered(range(2), 2, "train")])
    assert len(open_source(root, ReadOptions(split="train")).names) == 2
    with pytest.raises(DataError, match=r"2 of 3 files val-\*-of-00003; missing: val-00001-of-00003\*") as caught:
        open_source(root, ReadOptions(split="val"))
    assert len(open_source(shlex.split(str(caught.value))[-1]).names) == 2


@pytest.mark.parametrize(
    "names",
    [
        numbered(range(4)),
        numbered([1, 2, 3, 4]),
        [f"train-{at}-of-4.parquet" for at in range(4)],
        [f"train-{at}-of-12.parquet" for at in range(12)],
        ["one-7-of-3.parquet", "two-1-of-0.parquet", "three.parquet"],  # these count nothing
    ],
)
def test_whole_sets_are_read(tmp_path: Path, names: list[str]) -> None:
    assert len(open_source(shards(tmp_path / "set", names)).names) == len(names)


# A header as TensorFlow writes it: a record of 24 bytes, and the masked CRC-32C of that length.
TFRECORD = struct.pack("<Q", 24) + b'\xa3\x7fK"' + b"\0" * 28
LMDB = b"\0" * 16 + struct.pack("<I", 0xBEEFC0DE) + b"\0" * 64
HDF5 = b"\x89HDF\r\n\x1a\n" + b"\0" * 64

DATA_SETS = {
    "train.tfrecord": (TFRECORD, "TFRecord file"),
    "train.tfrecord-00000-of-00004": (TFRECORD, "TFRecord file"),
    "train-00000-of-01024": (TFRECORD, "TFRecord file"),
    "images.lmdb/data.mdb": (LMDB, "LMDB file"),
    "faces.h5": (HDF5, "HDF5 file"),
    "faces.hdf5": (HDF5, "HDF5 file"),
    "train.rec": (struct.pack("<I", 0xCED7230A), "RecordIO file"),
}


@pytest.mark.parametrize("picture", ["thumb.png", "assets/preview.png"])
@pytest.mark.parametrize("name", DATA_SETS)
def test_a_picture_beside_a_data_set_that_is_not_read_is_refused(tmp_path: Path, name: str, picture: str) -> None:
    """One stray picture made itself the data set, N = 1."""
    content, kind = DATA_SETS[name]
    root = write_files(tmp_path / "set", {picture: solid(), name: content})
    with pytest.raises(DataError, match=rf"1 picture \({picture}\) beside 1 {kind}, which are not read") as caught:
        open_source(root)
    assert "write them as Parquet" in str(caught.value)
    assert len(open_source(shlex.split(str(caught.value))[-1]).names) == 1
    (root / picture).unlink()
    with pytest.raises(DataError, match=rf"contains no images itself, but 1 {kind}, which are not read"):
        open_source(root)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.h5", b"not HDF5"),
        ("access.mdb", b"\0\1\0\0Standard Jet DB"),
        ("data.lock.mdb", struct.pack("<II", 0xBEEFC0DE, 1)),
        ("log-00000-of-00002", b"some other text, and not a record"),
        ("x.rec", b"text"),
    ],
)
def test_what_is_only_called_like_one_does_not_matter(tmp_path: Path, name: str, content: bytes) -> None:
    root = write_files(tmp_path / "set", {"0.png": solid(), name: content})
    assert open_source(root).names == ["0.png"]


def test_parquet_beside_other_data_sets_is_read(tmp_path: Path) -> None:
    root = write_files(shards(tmp_path / "set", ["a.parquet"]), {"embeddings.h5": HDF5})
    assert len(open_source(root).names) == 1


def test_numbered_pictures_without_a_suffix_are_counted_as_left_out(tmp_path: Path) -> None:
    root = write_files(tmp_path / "set", {"0.png": solid(), "frame-00001-of-00002": solid()})
    assert open_source(root).left_out == {"(none)": 1}


def test_a_record_is_recognized_by_its_checksum(tmp_path: Path) -> None:
    for at in range(12):
        changed = bytearray(TFRECORD)
        changed[at] ^= 1
        assert not begins_as_tfrecord(write_files(tmp_path, {"x": bytes(changed)}) / "x")
    assert begins_as_tfrecord(write_files(tmp_path, {"x": TFRECORD}) / "x")
    assert not begins_as_tfrecord(write_files(tmp_path, {"x": b""}) / "x")
