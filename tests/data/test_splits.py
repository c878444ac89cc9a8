"""The images of a folder, archive or pattern: mixtures and splits are refused, and each part can be given alone."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import (
    image_rows,
    npz_bytes,
    pack,
    parquet_bytes,
    solid,
    tar_bytes,
    write_files,
    write_parquet,
    zip_bytes,
)

from tokbench.data.dataset import open_dataset
from tokbench.data.reading import ReadOptions
from tokbench.data.sources.open import open_source
from tokbench.data.splits import splits_of_images, splits_of_shards
from tokbench.errors import DataError, UsageError
from tokbench.protocol.protocol import TOKBENCH
from tokbench.tokenizers.builtin.images import ImageFolder

IMAGES = np.zeros((3, 8, 8, 3), np.uint8)


def shard(count: int) -> bytes:
    """A Parquet file of some images."""
    return parquet_bytes(image_rows(count))


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        (
            {"train-0.parquet": shard(4), "train-1.parquet": shard(4)},
            "2 Parquet files",
        ),
        ({"deep/x.parquet": shard(4)}, "1 Parquet file"),
        ({"x.zip": zip_bytes({"a.png": solid()})}, "1 zip file"),
        ({"x.tar": tar_bytes({"a.png": solid()})}, "1 tar file"),
        ({"x.tar.gz": tar_bytes({"a.png": solid()}, "w:gz")}, "1 tar file"),
        ({"x.npz": npz_bytes(arr_0=IMAGES)}, "1 npz file"),
        ({"x.zip": b"not a zip"}, "1 zip file"),
        ({"x.zip": zip_bytes({"a.png": solid()}), "y.npz": npz_bytes(arr_0=IMAGES)}, "1 npz file and 1 zip file"),
    ],
)
@pytest.mark.parametrize("picture", ["thumb.png", "assets/preview.JPG"])
def test_a_picture_beside_files_of_images_is_refused(
    tmp_path: Path, beside: dict[str, bytes | int], message: str, picture: str
) -> None:
    """One stray picture made itself the data set, N = 1."""
    write_files(tmp_path, {picture: solid()} | beside)
    with pytest.raises(DataError) as caught:
        open_source(tmp_path)
    text = str(caught.value)
    assert f"{tmp_path} contains 1 picture ({picture}) beside" in text
    assert all(part in text for part in message.split(" and "))


def test_the_remedies_of_a_mixture_work(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        {
            "a/logo.png": solid(),
            "a/b/icon.png": solid(),
            "data/x-0.parquet": shard(2),
            "data/x-1.parquet": shard(3),
        },
    )
    with pytest.raises(DataError) as caught:
        open_source(tmp_path)
    given = [part for part in shlex.split(str(caught.value)) if part.startswith(str(tmp_path) + "/")]
    counts = [len(open_source(part.rstrip(",;")).names) for part in given]
    assert sorted(counts) == [2, 5]


@pytest.mark.parametrize(
    "beside",
    [
        {"labels.parquet": pa.table({"label": [1, 2]})},
        {"code.zip": zip_bytes({"main.py": b"pass"})},
        {"notes.tar.gz": tar_bytes({"a.json": b"{}"}, "w:gz")},
        {"stats.npz": npz_bytes(mu=np.zeros(3), sigma=np.eye(3))},
        {"latents.npz": npz_bytes(arr_0=np.zeros((3, 4)))},
        {"readme.txt": b"text"},
    ],
)
def test_files_without_images_do_not_matter(tmp_path: Path, beside: dict) -> None:
    write_files(tmp_path, {"0.png": solid(), "1.png": solid()})
    for name, content in beside.items():
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        else:
            pq.write_table(content, tmp_path / name)
    assert open_source(tmp_path).names == ["0.png", "1.png"]


def test_folders_of_files_that_are_no_one_data_set_say_what_they_hold(tmp_path: Path) -> None:
    """Several zips, or arrays, may be different datasets; the message states how to read one or all of them."""
    pack(tmp_path / "set" / "0.zip", {"a.png": solid()})
    pack(tmp_path / "set" / "1.zip", {"b.png": solid()})
    with pytest.raises(DataError, match=r"2 zip files, which are not read as one dataset; .*0\.zip, or all") as caught:
        open_source(tmp_path / "set")
    given = [part.rstrip(",") for part in shlex.split(str(caught.value)) if part.startswith(str(tmp_path) + "/")]
    assert [open_source(part).names for part in given[1:]] == [["a.png"], ["a.png", "b.png"]]
    write_files(tmp_path / "both", {"x.parquet": shard(2), "y.zip": zip_bytes({"a.png": solid()})})
    with pytest.raises(DataError, match=r"1 Parquet file and 1 zip file, which are not read as one dataset") as caught:
        open_source(tmp_path / "both")
    assert len(open_source(shlex.split(str(caught.value))[-1]).names) == 2


def test_parquet_in_several_folders_is_refused_and_in_one_is_read(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        {
            "repo/data/x-0.parquet": shard(2),
            "repo/data/x-1.parquet": shard(3),
            "repo/README.md": b"# text",
        },
    )
    assert len(open_source(tmp_path / "repo").names) == 5
    write_files(tmp_path, {"repo/other/y.parquet": shard(1)})
    with pytest.raises(DataError, match=r"Parquet files in 2 folders \(data: 2, other: 1\)"):
        open_source(tmp_path / "repo")
    assert len(open_source(f"{tmp_path}/repo/**/*.parquet").names) == 6


# Splits

LAYOUTS = {
    "top": {"train/a/0.png": solid(1), "train/b/1.png": solid(2), "val/a/2.png": solid(3)},
    "wrapped": {"set/train/0.png": solid(1), "set/train/1.png": solid(2), "set/validation/2.png": solid(3)},
    "beside a picture": {"logo.png": solid(9), "images/train/0.png": solid(1), "images/train/1.png": solid(2),
                         "images/VALID/2.png": solid(3)},
    "years": {"train2017/0.png": solid(1), "train2017/1.png": solid(2), "val2017/2.png": solid(3)},
    "words": {"DIV2K_train_HR/0.png": solid(1), "DIV2K_train_HR/1.png": solid(2), "DIV2K_valid_HR/2.png": solid(3)},
    "by category": {"cat/train/0.png": solid(1), "dog/train/1.png": solid(2), "cat/dev/2.png": solid(3)},
}  # fmt: skip


@pytest.mark.parametrize("form", ["folder", "a.zip", "a.tar"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_of_several_splits_are_refused_or_chosen(tmp_path: Path, layout: str, form: str) -> None:
    path = pack(tmp_path / form, LAYOUTS[layout])
    with pytest.raises(
        DataError, match=r"several splits \(train: 2 images, validation: 1 image[,)].*--split"
    ) as caught:
        open_dataset(str(path), TOKBENCH)
    assert ("--data" in str(caught.value)) == (form == "folder")
    assert ("in none of them: 1 image" in str(caught.value)) == (layout == "beside a picture")
    for asked, levels in (("train", [1, 2]), ("validation", [3]), ("val", [3])):
        dataset = open_dataset(str(path), TOKBENCH, reading=ReadOptions(split=asked))
        pixels = next(iter(dataset.batches(4))).reference[:, 0, 0, 0] * 255
        assert pixels.round().tolist() == levels
    with pytest.raises(UsageError, match=r"no split 'test'; there are train: 2 images, validation: 1 image"):
        open_dataset(str(path), TOKBENCH, reading=ReadOptions(split="test"))


def test_the_remedy_of_a_split_works(tmp_path: Path) -> None:
    for number, layout in enumerate(("top", "wrapped", "beside a picture", "years", "words")):
        path = write_files(tmp_path / str(number), LAYOUTS[layout])
        with pytest.raises(DataError) as caught:
            open_dataset(str(path), TOKBENCH)
        assert len(open_dataset(shlex.split(str(caught.value))[-1], TOKBENCH)) == 1


SHARDS = {
    "hub": ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/validation-00000.parquet"),
    "flat": ("train.parquet", "train_1.parquet", "val.parquet"),
    "named": ("cifar-training-0.parquet", "cifar-training-1.parquet", "cifar-dev.parquet"),
    "folders": ("default/train/0000.parquet", "default/train/0001.parquet", "default/validation/0000.parquet"),
}


@pytest.mark.parametrize("layout", SHARDS)
def test_shards_of_several_splits_are_refused_or_chosen(tmp_path: Path, layout: str) -> None:
    for number, name in enumerate(SHARDS[layout]):
        write_parquet(tmp_path / "set" / name, image_rows(2, 10 * number))
    for given in (tmp_path / "set", f"{tmp_path}/set/**/*.parquet"):
        with pytest.raises(
            DataError, match=r"several splits \(train: 2 Parquet files, validation: 1 Parquet"
        ) as caught:
            open_dataset(str(given), TOKBENCH)
        assert len(open_dataset(shlex.split(str(caught.value))[-1], TOKBENCH)) == 2
        assert open_dataset(str(given), TOKBENCH, reading=ReadOptions(split="val")).names == ["020.png", "021.png"]
        assert len(open_dataset(str(given), TOKBENCH, reading=ReadOptions(split="training"))) == 4
    with pytest.raises(UsageError, match="no split 'test'; there are train: 2 Parquet files"):
        open_dataset(str(tmp_path / "set"), TOKBENCH, reading=ReadOptions(split="test"))


@pytest.mark.parametrize(
    "names",
    [
        ["train/0.png", "bus/1.png", "car/2.png"],  # a class
        ["train/0.png", "training/1.png"],  # one split by two names
        ["bullet_train/0.png", "test_tube/1.png", "bus/2.png"],  # words among classes
        ["test.png", "train.png", "val_1.png"],  # pictures
        ["val/train/0.png", "val/bus/1.png"],
        ["a/0.png", "b/1.png", "2.png"],
    ],
)
def test_what_only_looks_like_splits_is_one_data_set(tmp_path: Path, names: list[str]) -> None:
    write_files(tmp_path / "set", {name: solid() for name in names})
    assert open_source(tmp_path / "set").names == sorted(names)
    with pytest.raises(UsageError, match="contains no split 'trainval'"):
        open_source(tmp_path / "set", ReadOptions(split="trainval"))


def test_splits_of_names() -> None:
    def splits(found: list) -> list[str | None]:
        return [part.split if part else None for part in found]

    assert splits(splits_of_shards(["a-train-test.parquet", "latest.parquet", "Test.parquet", "eval/0.parquet"])) == [
        None, None, "test", "test",
    ]  # fmt: skip
    assert splits(splits_of_images(["trainval/0.png", "test/1.png"])) == ["trainval", "test"]
    assert splits(splits_of_images(["a.png"])) == [None]


def test_a_split_is_of_paths_with_splits_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"dataset samples is one split already.*omit --split"):
        open_dataset("samples", TOKBENCH, reading=ReadOptions(split="train"))
    (tmp_path / "a.npz").write_bytes(npz_bytes(arr_0=IMAGES))
    with pytest.raises(UsageError, match="has no splits"):
        open_dataset(str(tmp_path / "a.npz"), TOKBENCH, reading=ReadOptions(split="train"))
    write_parquet(tmp_path / "train-0.parquet", image_rows(2))
    assert len(open_dataset(str(tmp_path / "train-0.parquet"), TOKBENCH, reading=ReadOptions(split="train"))) == 2
    with pytest.raises(UsageError, match="no split 'val'"):
        open_dataset(str(tmp_path / "train-0.parquet"), TOKBENCH, reading=ReadOptions(split="val"))


def test_named_datasets_and_reconstructions_may_hold_several_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dataset.toml names its images; reconstructions are paired by names that hold the splits."""
    folder = tmp_path / "root" / "datasets" / "mine"
    folder.mkdir(parents=True)
    (folder / "dataset.toml").write_text(
        'title = "t"\nsize = 8\ncount = 3\nlicence = "none"\nget = "-"\nsources = ["images"]\norder = "listed"\n'
    )
    write_files(tmp_path / "data" / "mine" / "images", LAYOUTS["top"])
    monkeypatch.setenv("TOKBENCH_DATA", str(tmp_path / "data"))
    dataset = open_dataset("mine", TOKBENCH, root=tmp_path / "root")
    assert len(dataset) == 3
    ImageFolder("images:x", tmp_path / "data" / "mine" / "images").bind_dataset(dataset.names, dataset.names)


# Patterns


def test_a_pattern_takes_what_it_matches(tmp_path: Path) -> None:
    root = write_files(tmp_path / "set", {"a/0.png": solid(1), "a/1.jpg": solid(2), "b/0.png": solid(3)})
    write_files(root, {"notes.txt": b"", ".hidden/0.png": solid(4)})
    assert open_source(f"{root}/a/*").names == ["0.png", "1.jpg"]
    assert open_source(f"{root}/*/0.png").names == ["a/0.png", "b/0.png"]
    assert open_source(f"{root}/**/*.png").names == ["a/0.png", "b/0.png"]
    assert open_source(f"{root}/[ab]").names == open_source(f"{root}/**").names == ["a/0.png", "a/1.jpg", "b/0.png"]
    assert open_source(f"{root}/**/*.png").open(1).getpixel((0, 0)) == (3, 3, 3)
    (root / "one.zip").write_bytes(zip_bytes({"z.png": solid()}))
    assert open_source(f"{root}/*.zip").names == ["z.png"]
    with pytest.raises(DataError, match=r"contains 3 pictures \(a/0.png, ...\) beside 1 zip file"):
        open_source(f"{root}/*")


def test_a_path_with_signs_of_a_pattern_is_a_path(tmp_path: Path) -> None:
    root = write_files(tmp_path / "set [a-z]*", {"0.png": solid(1)})
    assert open_source(root).names == ["0.png"]
    assert open_dataset(str(root), TOKBENCH).name.startswith("set-a-z")


def test_a_pattern_without_a_match_says_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_files(tmp_path / "set", {"a.png": solid(), "b.txt": b"", "c.heic": b""})
    with pytest.raises(UsageError, match=r"matches .*\*\.parquet; .*set contains a.png, b.txt, c.heic"):
        open_dataset(f"{root}/*.parquet", TOKBENCH)
    monkeypatch.setattr("tokbench.data.decode.heif_is_readable", lambda: False)
    with pytest.raises(UsageError, match=r"matches .*; 1 file that looks like an image: 1 .heic; .* contains"):
        open_dataset(f"{root}/*.heic", TOKBENCH)
    with pytest.raises(UsageError, match=r"there is no folder .*absent"):
        open_dataset(f"{tmp_path}/absent/*.png", TOKBENCH)


def test_patterns_follow_no_link_out_unless_asked(tmp_path: Path) -> None:
    write_files(tmp_path / "outside", {"0.png": solid(1)})
    root = write_files(tmp_path / "set", {"sub/1.png": solid(2)})
    (root / "away").symlink_to(tmp_path / "outside")
    (root / "alias").symlink_to("sub")
    for pattern in ("*/*.png", "*"):
        found = open_source(f"{root}/{pattern}")
        assert [name for name in found.names if name.startswith("sub")] == ["sub/1.png"]
        with pytest.raises(DataError, match="--follow-links"):
            found.open(0)
        assert open_source(f"{root}/{pattern}", ReadOptions(follow_links=True)).names == ["away/0.png", "sub/1.png"]


# The command line


def test_commands_take_a_split_or_a_pattern(tmp_path: Path, cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """`tokbench check` finds the results of `tokbench eval`, because both name a data set equally."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(SHARDS["hub"]):
        write_parquet(Path("set") / name, image_rows(3, 10 * number))
    options = ("--metrics", "psnr", "--out", "res")
    refused = cli("eval", "resize.2", "--data", "set", *options)
    assert refused.exit_code == 1 and "several splits" in refused.stderr
    made = {}
    for given in (("--data", "set", "--split", "val"), ("--data", "set/data/val*.parquet")):
        done = cli("eval", "resize.2", *given, *options, "--json")
        assert done.exit_code == 0, done.stderr
        (facts,) = json.loads(done.stdout)
        made[given] = facts["dataset"], facts["num_images"], facts["provenance"]["data"]["sha256"]
        again = cli("check", *given, "--against", "res")
        assert again.exit_code == 0, again.output
    (first, second) = made.values()
    assert first[0].startswith("set-validation-") and second[0].startswith("data-")
    assert first[1:] == second[1:] and first[1] == 3
    wrong = cli("check", "--split", "val", "--against", "res")
    assert wrong.exit_code == 2 and "--split requires --data to be a path" in wrong.stderr
    assert cli("eval", "resize.2", "--split", "val", *options).exit_code == 2


class _Opened(Exception):
    """Stops a command where it has opened its images."""


@pytest.mark.parametrize(
    ("command", "place"),
    [
        (("eval", "resize.2", "--metrics", "psnr"), "tokbench.data.dataset"),
        (("eval", "resize.2", "--task", "generate", "--limit", "2"), "tokbench.data.dataset"),
        (("audit", "resize.2", "--metrics", "psnr"), "tokbench.data.dataset"),
        (("stats", "make", "--out", "s.npz"), "tokbench.data.dataset"),
        (("stats", "verify", "s.npz", "--reference-is", "inception-2015-12-05:tf1:float32"), "tokbench.data.dataset"),
        (("check",), "tokbench.data.dataset"),
        (("prune", "random"), "tokbench.pruning.classifier.models"),
        (("train", "vq.toy"), "tokbench.data.dataset"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_every_command_that_opens_images_hands_the_options_on(
    tmp_path: Path, cli, command: tuple[str, ...], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(data: str, *arguments: object, **more: object) -> None:
        raise _Opened(data, arguments[-1])

    monkeypatch.chdir(write_files(tmp_path, LAYOUTS["top"]))
    if command[0] == "check":
        assert cli("eval", "resize.2", "--data", ".", "--split", "val", "--metrics", "psnr", "--out", "results").output
    np.savez("s.npz", mu=np.zeros(64), sigma=np.eye(64), tokbench=json.dumps({"layers": ["64"]}))
    monkeypatch.setattr("tokbench.extractors.pool.ExtractorPool.get", lambda *arguments: _Reader())
    monkeypatch.setattr("tokbench.training.plan.chosen", lambda *arguments: {})
    monkeypatch.setattr("tokbench.pruning.classifier.kind.load_classifier", lambda *arguments: _Classifier())
    monkeypatch.setattr(f"{place}.open_dataset", opened)
    done = cli(*command, "--data", ".", "--split", "val", "--column", "x", "--follow-links")
    assert isinstance(done.exception, _Opened), done.output
    place, reading = done.exception.args
    assert (place, reading.split, reading.column, reading.follow_links) == (".", "val", "x", True)


class _Reader:
    name, sha256 = "inception-2015-12-05", "0" * 64

    def describe(self) -> dict[str, str]:
        return {"input": "tf1"}


class _Classifier:
    filter, scaled = "bicubic", 8


def test_statistics_have_no_splits(tmp_path: Path, cli) -> None:
    np.savez(tmp_path / "s.npz", mu=np.zeros(64), sigma=np.eye(64))
    done = cli("eval", "resize.2", "--task", "generate", "--data", tmp_path / "s.npz", "--split", "val", "--limit", "4",
               "--out", tmp_path / "res")  # fmt: skip
    assert done.exit_code == 2 and "--split selects images" in done.stderr
