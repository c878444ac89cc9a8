"""Labels of a classifier's images: columns, class folders, and what cannot be the labels of a network."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from image_files import add_to_archive, image_rows, npz_bytes, pack, solid, write_files, write_parquet

from tokbench.data.dataset import Dataset, open_dataset
from tokbench.data.labels import ClassNames, Labels, at_chance, find_labels, listed_classes, parse_class_names
from tokbench.data.reading import ReadOptions
from tokbench.errors import DataError
from tokbench.protocol.protocol import TOKBENCH

WORDNET = ClassNames(["n03", "n01", "n02", "n09"], "the network's own list")
"""The order is not the sorted one, so that a test sees which of the two was used."""


def numbered(names: Sequence[str]) -> dict[str, bytes]:
    """Images of the grey levels 0, 1, 2 and so on under these names."""
    return {name: solid(level) for level, name in enumerate(names)}


def parquet(path: Path, labels: Any, **options: Any) -> Path:
    return write_parquet(path, image_rows(len(labels)), labels, **options)


def opened(path: Path) -> Dataset:
    return open_dataset(str(path), TOKBENCH)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
@pytest.mark.parametrize("prefix", ["", "val/", "a/b/"])
def test_folders_that_the_network_knows_by_name_have_its_labels(tmp_path: Path, kind: str, prefix: str) -> None:
    """Also of fewer classes than it has, also below folders that all images share."""
    names = [f"{prefix}n01/x.png", f"{prefix}n01/deep/er.png", f"{prefix}n03/x.png"]
    path = pack(tmp_path / f"images.{kind}", numbered(names))
    found = find_labels(opened(path), 4, WORDNET)
    assert {name.removeprefix(prefix): label for name, label in found.by_name.items()} == {
        "n01/x.png": 1, "n01/deep/er.png": 1, "n03/x.png": 0,
    }  # fmt: skip
    assert found.rule == "names of folders, in the order of the network's own list"
    facts = found.facts(list(found.by_name))
    assert (facts["present"], facts["classes"]) == (2, 4)


def test_as_many_other_folders_as_classes_count_in_sorted_order(tmp_path: Path) -> None:
    data = opened(write_files(tmp_path / "images", numbered(["dog/a.png", "cat/a.png", "bird/a.png", "ant/a.png"])))
    found = find_labels(data, 4, WORDNET)
    assert found.by_name == {"ant/a.png": 0, "bird/a.png": 1, "cat/a.png": 2, "dog/a.png": 3}
    assert found.rule == "the 4 folders in sorted order, as ImageFolder counts them"


def test_a_list_of_classes_comes_before_both(tmp_path: Path) -> None:
    listed = parse_class_names(b"great white shark\tCarcharodon\nn01\nn02\nn03\n", "classes.txt")
    data = opened(write_files(tmp_path / "images", numbered(["n01/a.png", "great white shark/a.png", "n03/a.png"])))
    found = find_labels(data, 4, WORDNET, listed)
    assert found.by_name == {"great white shark/a.png": 0, "n01/a.png": 1, "n03/a.png": 3}
    assert found.rule == "names of folders, in the order of classes.txt"


@pytest.mark.parametrize(
    ("names", "classes", "message"),
    [
        (["n01/a.png", "n02/a.png", "n77/a.png"], 4, "the network's own list has no class named n77"),
        (["n01/a.png", "cat/a.png", "dog/a.png", "n02/a.png"], 4, "has no class named cat, dog"),
        (["cat/a.png", "dog/a.png"], 4, r"its 2 folders \(cat, dog\) are not named after the network's classes"),
        (["cat/a.png", "loose.png"], 4, "loose.png is not in a class folder"),
        (["a.png", "b.png"], 4, "has no labels"),
        (["n01/a.png", "n01/b.png"], 4, "all 2 images have the label 1"),
        ([f"{number}/a.png" for number in range(11)], 11, r"are numbers, whose order as text .*\(0, 1, 10 and"),
    ],
)
def test_folders_that_say_no_class_are_named(tmp_path: Path, names: list[str], classes: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_labels(opened(write_files(tmp_path / "images", numbered(names))), classes, WORDNET)


def test_numbers_that_sort_alike_both_ways_are_classes(tmp_path: Path) -> None:
    data = opened(write_files(tmp_path / "images", numbered([f"{number:02}/a.png" for number in range(11)])))
    assert list(find_labels(data, 11).by_name.values()) == list(range(11))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n01\nn02\nn01\nn03\n", "lines 1 and 3 both list n01"),
        ("n01\n\nn02\nn03\n", "line 2 names no class"),
        ("n01\nn02\n", "classes.txt lists 2 classes, but the network has 4"),
        ("n01\nn02\nn03\nn04\n", "classes.txt has no class named n09"),
    ],
)
def test_a_list_of_classes_that_does_not_fit_is_named(tmp_path: Path, text: str, message: str) -> None:
    data = opened(write_files(tmp_path / "images", numbered(["n01/a.png", "n09/a.png"])))
    with pytest.raises(DataError, match=message):
        find_labels(data, 4, WORDNET, parse_class_names(text.encode(), "classes.txt"))


LIST = b"\xef\xbb\xbfd\r\nb\r\na\r\nc\r\n"
"""The file as an editor on Windows saves it: with a byte-order mark and CRLF."""

IMAGES = ["a/x.png", "b/x.png", "c/x.png", "d/x.png"]
ORDERED = {"a/x.png": 2, "b/x.png": 1, "c/x.png": 3, "d/x.png": 0}


def labels_of(path: Path, split: str | None = None) -> tuple[dict[str, int], str]:
    """Images are matched by the last two parts of their names."""
    data = open_dataset(str(path), TOKBENCH, reading=ReadOptions(split=split))
    found = find_labels(data, 4, None, listed_classes(data, path))
    return {"/".join(name.split("/")[-2:]): label for name, label in found.by_name.items()}, found.rule


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
@pytest.mark.parametrize(("prefix", "at"), [("", ""), ("photos/", "photos/"), ("photos/", ""), ("p/q/", "p/")])
def test_a_list_inside_is_read(tmp_path: Path, kind: str, prefix: str, at: str) -> None:
    """The list is read from a folder, a zip and a tar, beside the class folders or above them."""
    names = [f"{prefix}{name}" for name in IMAGES]
    path = pack(tmp_path / f"images.{kind}", numbered(names) | {f"{at}classes.txt": LIST})
    assert labels_of(path) == (ORDERED, f"names of folders, in the order of {at}classes.txt")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_list_beside_an_archive_is_read_where_none_is_inside(tmp_path: Path, kind: str) -> None:
    path = pack(tmp_path / f"images.{kind}", numbered(IMAGES))
    (tmp_path / "classes.txt").write_bytes(LIST)
    assert labels_of(path) == (ORDERED, "names of folders, in the order of classes.txt beside the archive")
    add_to_archive(path, "classes.txt", b"a\nb\nc\nd\n")
    assert labels_of(path)[0] == {"a/x.png": 0, "b/x.png": 1, "c/x.png": 2, "d/x.png": 3}
    add_to_archive(path, "./classes.txt", LIST)
    with pytest.raises(DataError, match=r"two members have the name './classes\.txt'"):
        labels_of(path)


def test_a_list_in_an_archive_that_is_a_link_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "images.tar", numbered(IMAGES))
    with tarfile.open(path, "a") as tar:
        member = tarfile.TarInfo("classes.txt")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(DataError, match=r"classes.txt: a link inside an archive"):
        labels_of(path)


@pytest.mark.parametrize("split", ["val", "DIV2K_valid_HR", "test2017"])
def test_a_list_above_the_folder_of_a_split_holds_for_it(tmp_path: Path, split: str) -> None:
    """The labels are equal for `--split` and for the command that the message about several splits proposes."""
    names = [f"{other}/{name}" for other in ("train", split) for name in IMAGES]
    whole = write_files(tmp_path / "full", numbered(names))
    (whole / "classes.txt").write_bytes(LIST)
    assert labels_of(whole, "test" if split == "test2017" else "val") == (
        ORDERED,
        "names of folders, in the order of classes.txt",
    )
    alone = "names of folders, in the order of classes.txt above the split's folder"
    assert labels_of(whole / split) == (ORDERED, alone)
    # This folder has no split's name, so that the list above it belongs to something else.
    other = write_files(tmp_path / "full" / "photos", numbered(IMAGES))
    assert labels_of(other)[1] == "the 4 folders in sorted order, as ImageFolder counts them"


def limited(path: Path, limit: int) -> Dataset:
    return open_dataset(str(path), TOKBENCH, limit=limit, reading=ReadOptions(first=True))


def test_shards_with_equal_names_keep_the_class_folders_of_their_members(tmp_path: Path) -> None:
    """Their names begin with that of the tar, which is no class: the label of an image was the number of its tar."""
    members = {f"{name}/0.png": solid() for name in ("cat", "dog")}
    for shard in ("0.tar", "1.tar"):
        pack(tmp_path / "set" / shard, members)
    dataset = opened(tmp_path / "set")
    classes = {"0.tar/cat/0.png": 0, "0.tar/dog/0.png": 1, "1.tar/cat/0.png": 0, "1.tar/dog/0.png": 1}
    assert find_labels(dataset, 2).by_name == classes
    found = find_labels(dataset, 3, ClassNames(["bird", "cat", "dog"], "the network's own list"))
    assert found.by_name == {name: label + 1 for name, label in classes.items()}
    pack(tmp_path / "set" / "2.tar", members | {"classes.txt": b"dog\ncat"})
    listed = listed_classes(opened(tmp_path / "set"), tmp_path / "set")
    assert listed is not None and listed.names == ["dog", "cat"]


def test_several_arrays_have_no_labels(tmp_path: Path) -> None:
    """The names of the files were those of the classes."""
    images = npz_bytes(arr_0=np.zeros((2, 8, 8, 3), np.uint8))
    write_files(tmp_path, {"0.npz": images, "1.npz": images})
    with pytest.raises(DataError, match="has no labels"):
        find_labels(opened(tmp_path / "*.npz"), 2)


def test_first_images_of_one_class_are_refused(tmp_path: Path) -> None:
    """Folders sort by class: the first N measured one class alone."""
    path = write_files(
        tmp_path / "images", numbered([f"n0{one}/{place:02}.png" for one in (1, 2, 3, 9) for place in range(30)])
    )
    with pytest.raises(
        DataError,
        match=r"first 20 images all have the class 1, but all 120 images have 4 classes.*omit --first, or .*mixed",
    ):
        find_labels(limited(path, 20), 4, WORDNET)
    some = open_dataset(f"{path}/*/0[0-4].png", TOKBENCH)
    assert len(some) == 20 and find_labels(some, 4, WORDNET).facts(some.names)["present"] == 4
    assert find_labels(limited(path, 1), 4, WORDNET).by_name


def test_first_images_of_few_classes_are_doubted(tmp_path: Path) -> None:
    path = write_files(
        tmp_path / "images", numbered([f"n0{one}/{place:02}.png" for one in (1, 2, 3, 9) for place in range(30)])
    )
    (warning,) = find_labels(limited(path, 60), 4, WORDNET).warnings
    assert "the first 60 of 120 images have 2 of 4 classes" in warning
    assert "the shares of the classes differ from those of all images by 50 %" in warning
    assert find_labels(limited(path, 120), 4, WORDNET).warnings == ()
    labels = np.random.default_rng(3).permutation(np.repeat(np.arange(4), 30))
    for limit in (8, 20, 60, 100):
        mixed = parquet(tmp_path / f"mixed-{limit}.parquet", labels)
        assert find_labels(limited(mixed, limit), 4).warnings == ()


def test_a_column_of_some_of_the_classes_is_taken(tmp_path: Path) -> None:
    found = find_labels(opened(parquet(tmp_path / "some.parquet", [3, 0, 3])), 4)
    assert list(found.by_name.values()) == [3, 0, 3]
    assert (found.rule, found.warnings) == ("column 'label'", ())
    assert found.facts(["000.png", "002.png"])["present"] == 1  # of the images that were measured


def test_labels_that_begin_at_0_and_end_early_may_be_of_a_smaller_set(tmp_path: Path) -> None:
    """Ten of ImageNet's classes counted anew from 0 look like this, and would give a wrong accuracy without a word."""
    found = find_labels(opened(parquet(tmp_path / "ten.parquet", [0, 1, 2, 1])), 1000)
    (warning,) = found.warnings
    assert "the labels are exactly 0 to 2, but the network has 1,000 classes" in warning


def test_a_file_that_states_other_classes_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path / "own.parquet", [0, 2], class_names=["cat", "dog", "bird", "ant"])
    assert find_labels(opened(path), 4).by_name == {"000.png": 0, "001.png": 2}
    with pytest.raises(DataError, match=r"own.parquet states that its labels have 4 classes \(cat, dog, bird and 1"):
        find_labels(opened(path), 1000)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 4], "001.png has the label 4, but the labels of the network's 4 classes are 0 to 3"),
        ([-1, 0], "000.png has the label -1"),
        ([-1, -1], "000.png has the label -1"),  # how test sets are published
        ([2, 2], "all 2 images have the label 2"),
        ([0.0, 1.0], "bad.parquet: its column 'label' has type double; labels must be integers"),
        ([True, False], "has type bool"),
        (["cat", "dog"], "has type string"),
        ([0, None], "has empty rows"),
    ],
)
def test_columns_that_are_no_labels_are_named(tmp_path: Path, labels: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_labels(opened(parquet(tmp_path / "bad.parquet", labels)), 4)


def test_a_shard_without_the_column_is_named(tmp_path: Path) -> None:
    whole = pq.read_table(parquet(tmp_path / "a.parquet", [0, 1]))
    pq.write_table(whole.drop_columns(["label"]), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b.parquet has no column 'label', but other files"):
        find_labels(opened(tmp_path), 4)


def test_images_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = opened(write_files(tmp_path / "images", numbered(["n01/a.png", "n02/a.png"])))
    data.source.names = ["n01/a.png", "n02/a.png", "n01/a.png"]
    with pytest.raises(DataError, match=r"two images have the name n01/a.png"):
        find_labels(data, 4, WORDNET)


def test_other_labels_of_the_same_images_are_other_facts() -> None:
    ours, theirs = (Labels({"a": 0, "b": label}, 4, "rule").facts(["a", "b"]) for label in (1, 2))
    assert ours["sha256"] != theirs["sha256"]


@pytest.mark.parametrize(
    ("right", "count", "warned"),
    [(0, 50, True), (5, 1000, True), (6, 1000, False), (0, 5, False), (700, 1000, False)],
)
def test_accuracy_at_chance_is_doubted(right: int, count: int, warned: bool) -> None:
    warning = at_chance(right, count, 200)
    assert (warning is not None) == warned
    assert warning is None or "chance is 0.5 %: are the labels those of this network?" in warning
