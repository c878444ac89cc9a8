"""The forms in which people have their images: shards, tables, lists of paths, arrays."""

from __future__ import annotations

import json
import resource
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import image_rows, pack, red_levels, solid, write_files, write_parquet

from tokbench.data.dataset import open_dataset
from tokbench.data.labels import find_labels
from tokbench.data.reading import ReadOptions
from tokbench.data.sources import shards as shards_module
from tokbench.data.sources.open import open_source
from tokbench.errors import DataError, UsageError
from tokbench.protocol.protocol import TOKBENCH

# Shards


def tars(root: Path, names: list[str], suffix: str = "") -> Path:
    """Tars of two images each, whose levels and names count on."""
    for number, name in enumerate(names):
        members = {f"{2 * number + i:04}.png": solid(2 * number + i) for i in (0, 1)}
        pack(root / f"{name}{suffix}", {f"{key}": value for key, value in members.items()} | {f"{number}.json": b"{}"})
    return root


def test_a_folder_of_tars_is_one_dataset(tmp_path: Path) -> None:
    root = tars(tmp_path / "set", ["000000.tar", "000001.tar", "000002.tar.gz"])
    (root / "sizes.json").write_text("{}")
    source = open_source(root)
    assert red_levels(source) == {f"{i:04}.png": i for i in range(6)}
    assert source.size(5) == (8, 8)
    dataset = open_dataset(str(root), TOKBENCH, limit=3)
    assert dataset.names == ["0000.png", "0001.png", "0002.png"] and dataset.available == 6
    pack(root / "000003.tar", {"0000.png": solid(9)})
    assert open_source(root).names[:3] == ["000000.tar/0000.png", "000000.tar/0001.png", "000001.tar/0002.png"]
    assert open_dataset(str(root), TOKBENCH).name != dataset.name


def test_a_folder_of_one_tar_is_that_tar(tmp_path: Path) -> None:
    pack(tmp_path / "set" / "a.tar", {"a.png": solid(3), "b.heif": b""})
    source = open_source(tmp_path / "set")
    assert red_levels(source)["a.png"] == 3


def test_tars_of_several_splits_are_refused_or_chosen(tmp_path: Path) -> None:
    root = tars(tmp_path / "by name", ["train-0.tar", "train-1.tar", "val-0.tar"])
    with pytest.raises(DataError, match=r"several splits \(train: 2 tar files, validation: 1 tar file\)") as caught:
        open_source(root)
    assert open_source(shlex.split(str(caught.value))[-1]).names == ["0004.png", "0005.png"]
    assert len(open_source(root, ReadOptions(split="train")).names) == 4
    for number, split in enumerate(("train", "val")):
        pack(tmp_path / "by member" / f"{number}.tar", {f"{split}/{number}.png": solid(number)})
    with pytest.raises(DataError, match=r"several splits \(train: 1 image, validation: 1 image\); give --split"):
        open_source(tmp_path / "by member")
    assert red_levels(open_source(tmp_path / "by member", ReadOptions(split="val"))) == {"val/1.png": 1}


def test_tars_of_several_folders_and_missing_ones_are_refused(tmp_path: Path) -> None:
    tars(tmp_path / "set" / "a", ["0.tar"])
    tars(tmp_path / "set" / "b", ["1.tar"])
    with pytest.raises(DataError, match=r"tar files in 2 folders \(a: 1, b: 1\)"):
        open_source(tmp_path / "set")
    assert len(open_source(f"{tmp_path}/set/**/*.tar").names) == 4
    with pytest.raises(DataError, match=r"contains 1 of 3 files x-\*-of-00003; missing: x-00000-of-00003.tar"):
        open_source(tars(tmp_path / "few", ["x-00001-of-00003.tar"]).parent / "few")


def test_more_shards_than_files_may_be_open_raise_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (64, 300))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limit: limits.append(limit))
    root = tars(tmp_path / "set", ["0.tar", "1.tar"])
    assert len(open_source(root).names) == 4
    assert limits == [(shards_module._RESERVED + 2, 300)]
    monkeypatch.setattr(shards_module, "_RESERVED", 400)
    with pytest.raises(DataError, match=r"2 files are more than this system lets a process open \(300\)"):
        open_source(root)


# Patterns with braces


def test_braces_of_webdataset_name_shards(tmp_path: Path) -> None:
    root = tars(tmp_path / "set", [f"shard-{i:04}.tar" for i in range(12)])
    source = open_source(f"{root}/shard-{{0002..0010}}.tar")
    assert list(red_levels(source).values()) == list(range(4, 22))
    assert open_dataset(f"{root}/shard-{{0002..0010}}.tar", TOKBENCH).name.startswith("set-")
    assert len(open_source(f"{root}/{{shard-0001,shard-000[3-5]}}.tar").names) == 8
    assert len(open_source(f"{tmp_path}/{{set,other}}/shard-0000.tar".replace(",other", ",set")).names) == 2
    with pytest.raises(UsageError, match=r"lists 2 names without a match in .*: shard-0012.tar, shard-0013.tar;"):
        open_source(f"{root}/shard-{{0010..0013}}.tar")
    with pytest.raises(UsageError, match=r"lists 1 name without a match in .*: shard-0012.tar; fetch what is missing"):
        open_source(f"{root}/shard-{{0010..0012}}.tar")
    with pytest.raises(UsageError, match=r"lists 1 name without a match in .*: absent/\*.tar; fetch"):
        open_source(f"{tmp_path}/{{set,absent}}/*.tar")
    with pytest.raises(UsageError, match=r"no image or file of images matches"):
        open_source(f"{root}/absent-{{0..3}}.tar")


def test_a_name_with_braces_is_a_name(tmp_path: Path) -> None:
    root = write_files(tmp_path / "a{b,c}", {"0.png": solid()})
    assert open_source(root).names == ["0.png"]
    with pytest.raises(DataError, match="no such file or folder"):
        open_source(tmp_path / "{unbalanced")


# Tables


def write_arrow(path: Path, table: pa.Table, stream: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return path


@pytest.mark.parametrize("stream", [True, False])
def test_folders_of_save_to_disk_are_read(tmp_path: Path, stream: bool) -> None:
    for split, first in (("train", 0), ("test", 5)):
        table = pa.table({"image": image_rows(5, first), "label": list(range(5))})
        write_arrow(tmp_path / "saved" / split / "data-00000-of-00001.arrow", table, stream)
        (tmp_path / "saved" / split / "state.json").write_text(json.dumps({"_indices_data_files": None}))
    (tmp_path / "saved" / "dataset_dict.json").write_text("{}")
    with pytest.raises(DataError, match=r"several splits \(test: 1 Arrow file, train: 1 Arrow file\); give --split"):
        open_source(tmp_path / "saved")
    one = {f"{i:03}.png": i for i in range(5, 10)}
    for given in (tmp_path / "saved" / "test", tmp_path / "saved" / "test" / "data-00000-of-00001.arrow"):
        assert red_levels(open_source(given)) == one
    assert red_levels(open_source(tmp_path / "saved", ReadOptions(split="test"))) == one
    one_file = (tmp_path / "saved" / "test" / "data-00000-of-00001.arrow").rename(tmp_path / "test-0.arrow")
    with pytest.raises(UsageError, match=r"no split 'train'; there are test: 1 Arrow file"):
        open_source(one_file, ReadOptions(split="train"))
    one_file.rename(tmp_path / "saved" / "test" / "data-00000-of-00001.arrow")
    labels = find_labels(open_dataset(str(tmp_path / "saved" / "test"), TOKBENCH), 5)
    assert (labels.rule, list(labels.by_name.values())) == ("column 'label'", list(range(5)))
    state = {"_indices_data_files": [{"filename": "indices.arrow"}]}
    (tmp_path / "saved" / "test" / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match=r"selects rows by indices, which are not read; .*flatten_indices"):
        open_source(tmp_path / "saved" / "test")


def test_damaged_arrow_files_are_refused_or_bad_images(tmp_path: Path) -> None:
    whole = write_arrow(tmp_path / "a.arrow", pa.table({"image": image_rows(6)})).read_bytes()
    rng = np.random.default_rng(0)
    for cut in (0, 20, len(whole) // 2):
        (tmp_path / "b.arrow").write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"b.arrow (is not a readable Arrow file|has no column)"):
            open_source(tmp_path / "b.arrow")
    for _ in range(60):
        spoiled = bytearray(whole)
        for place in rng.integers(0, len(whole), 4):
            spoiled[place] ^= int(rng.integers(1, 256))
        (tmp_path / "b.arrow").write_bytes(bytes(spoiled))
        try:
            red_levels(open_source(tmp_path / "b.arrow"))
        except (DataError, UsageError):
            continue


def table_file(path: Path, columns: dict[str, Any]) -> Path:
    table = pa.table(columns)
    if path.suffix == ".arrow":
        return write_arrow(path, table)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=2)
    return path


FILES = [solid(i) for i in range(5)]
PIXELS = np.arange(5 * 4 * 6 * 3, dtype=np.uint8).reshape(5, 4, 6, 3)
COLUMNS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "img": ({"img": image_rows(5), "label": [0] * 5}, [f"{i:03}.png" for i in range(5)]),
    "jpg": ({"__key__": [f"k{i}" for i in range(5)], "jpg": FILES, "txt": ["a"] * 5}, [f"k{i}" for i in range(5)]),
    "plain bytes": ({"image": FILES}, [f"{i:08}" for i in range(5)]),
    "large bytes": ({"x": pa.array(FILES, pa.large_binary()), "file_name": [f"{i}.png" for i in range(5)]},
                    [f"{i}.png" for i in range(5)]),
    "beside audio": ({"sound": [{"bytes": b"RIFF....WAVE", "path": "a.wav"}] * 5, "picture": image_rows(5)},
                     [f"{i:03}.png" for i in range(5)]),
    "list of images": ({"images": [image_rows(2), [], image_rows(3, 2)]}, [f"{i:03}.png" for i in range(5)]),
    "list of bytes": ({"images": [FILES[:4], FILES[4:]]}, [f"{i:08}" for i in range(5)]),
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".PARQUET"])
@pytest.mark.parametrize("form", COLUMNS)
def test_the_only_column_of_images_is_found(tmp_path: Path, form: str, suffix: str) -> None:
    columns, names = COLUMNS[form]
    source = open_source(table_file(tmp_path / f"a{suffix.lower()}", columns).rename(tmp_path / f"a{suffix}"))
    assert red_levels(source) == {name: i for i, name in enumerate(names)}
    assert source.size(4) == (8, 8)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("layout", ["HWC", "CHW", "HW", "fixed"])
def test_columns_of_pixels_are_images(tmp_path: Path, layout: str, suffix: str) -> None:
    pixels = {"CHW": PIXELS.transpose(0, 3, 1, 2), "HW": PIXELS[..., 0]}.get(layout, PIXELS)
    kind = pa.list_(pa.list_(pa.list_(pa.uint8(), 3), 6), 4) if layout == "fixed" else None
    columns = {"pixel_values": pa.array(pixels.tolist(), kind or nested(pixels.ndim - 1)), "label": [1] * 5}
    source = open_source(table_file(tmp_path / f"a{suffix}", columns))
    expected = np.repeat(PIXELS[..., :1], 3, -1) if layout == "HW" else PIXELS
    for position in range(5):
        assert np.array_equal(np.asarray(source.open(position)), expected[position])
    assert source.size(0) == (6, 4)


def nested(depth: int) -> pa.DataType:
    kind = pa.uint8()
    for _ in range(depth):
        kind = pa.list_(kind)
    return kind


def test_pixels_that_form_no_image_are_bad_images(tmp_path: Path) -> None:
    same_total = [[[1, 2, 3]] * 2, [[4, 5, 6]] * 4]
    rows = [[[[1, 2, 3]]], [[[1, 2, 3]], [[1, 2]]], None, same_total, [[[1, 2, 3]], None]]
    found = red_levels(open_source(table_file(tmp_path / "a.parquet", {"x": pa.array(rows, nested(3))})))
    assert found["00000000"] == 1
    for row in (1, 3, 4):
        assert "lists of pixels have different lengths" in str(found[f"{row:08}"])
    assert "has no bytes" in found["00000002"]


def test_one_of_several_columns_of_images_is_chosen(tmp_path: Path, cli) -> None:
    columns = {"left": image_rows(3), "right": image_rows(3, 100), "note": ["a"] * 3}
    path = table_file(tmp_path / "a.parquet", columns)
    with pytest.raises(UsageError, match=r"several columns of images \(left, right\); choose one with --column left"):
        open_source(path)
    assert list(red_levels(open_source(path, ReadOptions(column="right"))).values()) == [100, 101, 102]
    with pytest.raises(UsageError, match=r"no column 'middle'; its columns of images are left, right"):
        open_source(path, ReadOptions(column="middle"))
    with pytest.raises(DataError, match=r"column 'note' has type string, which is not that of images"):
        open_source(path, ReadOptions(column="note"))
    one, two = (open_dataset(str(path), TOKBENCH, reading=ReadOptions(column=name)).name for name in ("left", "right"))
    assert one != two and "-right-" in two
    done = cli("eval", "jpeg.q50", "--data", path, "--column", "right", "--metrics", "psnr", "--out", tmp_path / "res")
    assert done.exit_code == 0, done.stderr
    again = cli("check", "--data", path, "--column", "right", "--against", tmp_path / "res")
    assert again.exit_code == 0, again.output
    write_files(tmp_path / "folder", {"0.png": solid()})
    with pytest.raises(UsageError, match=r"--column selects a column of Parquet or Arrow files"):
        open_source(tmp_path / "folder", ReadOptions(column="image"))


def test_a_cloned_repository_of_the_hub_is_read(tmp_path: Path) -> None:
    write_parquet(tmp_path / "repo" / "data" / "train-00000-of-00001.parquet", image_rows(4))
    write_files(tmp_path / "repo", {"README.md": b"# set", ".gitattributes": b"", ".git/objects/ab/x.png": b"x"})
    assert len(open_source(tmp_path / "repo").names) == 4
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (tmp_path / "repo" / "data" / "train-00000-of-00001.parquet").write_bytes(pointer)
    with pytest.raises(DataError, match=r"a pointer of Git LFS, not the file itself; run git lfs pull"):
        open_source(tmp_path / "repo")
    folder = write_files(tmp_path / "images", {"0.png": pointer})
    assert "run git lfs pull" in red_levels(open_source(folder))["0.png"]
    for name in ("a.npz", "a.npy", "a.zip", "a.tar", "a.arrow"):
        write_files(tmp_path / "files", {name: pointer})
        with pytest.raises(DataError, match=rf"{name}: a pointer of Git LFS, not the file itself; run git lfs pull"):
            open_source(tmp_path / "files" / name)


# Lists of paths


def test_a_list_of_paths_is_read_in_its_order(tmp_path: Path, cli) -> None:
    root = write_files(tmp_path / "set", {"b/1.png": solid(1), "a/2.PNG": solid(2), "a/3.jpg": solid(3), "4.png": b"x"})
    (root / "some.txt").write_text("\ufeffb/1.png\n\n  a/2.PNG \r\n./4.png\nabsent.png\n", encoding="utf-8")
    found = red_levels(open_source(root / "some.txt"))
    assert list(found) == ["b/1.png", "a/2.PNG", "4.png", "absent.png"]
    assert (found["b/1.png"], found["a/2.PNG"]) == (1, 2)
    assert "lists it, but there is no such file; correct the list" in found["absent.png"]
    assert open_dataset(str(root / "some.txt"), TOKBENCH, limit=1).names == ["b/1.png"]
    (tmp_path / "absolute.txt").write_text(f"{root}/b/1.png\n{root}/a/2.PNG\n")
    assert list(red_levels(open_source(tmp_path / "absolute.txt"))) == ["set/b/1.png", "set/a/2.PNG"]
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "other.txt").write_text("../set/b/1.png\n../set/a/2.PNG\n")
    assert open_source(tmp_path / "lists" / "other.txt").names == ["b/1.png", "a/2.PNG"]
    (root / "caffe.txt").write_text("b/1.png 65\na/2.PNG 970\n")
    (root / "windows.txt").write_text("b\\1.png\na\\2.PNG\n")
    for name in ("caffe", "windows"):
        assert open_source(root / f"{name}.txt").names == ["b/1.png", "a/2.PNG"]
    done = cli("eval", "jpeg.q50", "--data", root / "caffe.txt", "--metrics", "psnr", "--out", tmp_path / "res")
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"", r"is empty; it must list the path of one image per line"),
        (b"a.png\na.png\n", r"lists .*a.png twice"),
        (b"Some text.\nAnd more.\n", r"'Some text.' is not the path of an image; a list has one path per line"),
        (
            b"x/0.png\ny.png\n",
            r"lists 2 files but none exists, for example .*/x/0.png; paths must be absolute or relative",
        ),
        (b"\xff\xfe\0", r"is not a readable list of paths"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused(tmp_path: Path, text: bytes, complaint: str) -> None:
    write_files(tmp_path, {"a.png": solid(), "list.txt": text})
    with pytest.raises(DataError, match=rf"list.txt\S* {complaint}"):
        open_source(tmp_path / "list.txt")


# Arrays


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"images": PIXELS, "labels": np.arange(5)}, PIXELS),
        ({"x": PIXELS.transpose(0, 3, 1, 2)}, PIXELS),
        ({"mask": PIXELS[..., 0], "x": PIXELS}, PIXELS),
        ({"digits": PIXELS[..., 0]}, np.repeat(PIXELS[..., :1], 3, -1)),
        ({"digits": PIXELS[..., :1]}, np.repeat(PIXELS[..., :1], 3, -1)),
        ({"rgba": np.concatenate([PIXELS, np.full((5, 4, 6, 1), 255, np.uint8)], -1)}, PIXELS),
        ({"arr_0": PIXELS, "arr_1": PIXELS[:, ::-1]}, PIXELS),
    ],
)
def test_any_one_array_of_images_is_read(
    tmp_path: Path, arrays: dict[str, np.ndarray], expected: np.ndarray, compressed: bool
) -> None:
    (np.savez_compressed if compressed else np.savez)(tmp_path / "a.npz", **arrays)
    source = open_source(tmp_path / "a.npz")
    assert np.array_equal(np.stack([np.asarray(source.open(i)) for i in range(5)]), expected)
    assert source.size(0) == (6, 4)


def test_an_array_is_chosen_or_read_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=PIXELS, x_test=PIXELS[:2], y=np.arange(5))
    with pytest.raises(UsageError, match=r"several arrays of images \(x_train, x_test\); choose one with --column"):
        open_source(tmp_path / "a.npz")
    assert len(open_source(tmp_path / "a.npz", ReadOptions(column="x_test")).names) == 2
    with pytest.raises(UsageError, match=r"has no array 'z'; its arrays are x_train"):
        open_source(tmp_path / "a.npz", ReadOptions(column="z"))
    with pytest.raises(DataError, match=r"y is int64 \(5,\), but images must be uint8"):
        open_source(tmp_path / "a.npz", ReadOptions(column="y"))
    np.save(tmp_path / "b.npy", PIXELS)
    assert np.array_equal(np.asarray(open_source(tmp_path / "b.npy").open(4)), PIXELS[4])
    with pytest.raises(UsageError, match=r"--column selects .* an array of an .npz file; .*b.npy has none"):
        open_source(tmp_path / "b.npy", ReadOptions(column="x_test"))
