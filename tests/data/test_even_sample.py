"""`--limit` of class folders: an even sample over the sorted list, recorded in results and repeated by `check`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from image_files import npz_bytes, pack, solid, write_files, write_gradients, write_parquet

from tokbench.data.dataset import open_dataset
from tokbench.data.labels import ClassNames, find_labels
from tokbench.data.reading import ReadOptions
from tokbench.errors import ResultError
from tokbench.metrics.fid_statistics import load_statistics
from tokbench.protocol.protocol import TOKBENCH
from tokbench.results.result import load
from tokbench.results.schema import check

CLASSES = {f"n0{one}/{place}.png": solid(10 * one + place) for one in (1, 2, 3) for place in range(4)}
EVEN = ["n01/0.png", "n01/2.png", "n02/0.png", "n02/2.png", "n03/0.png", "n03/2.png"]


@pytest.mark.parametrize("form", ["folder", "a.zip", "a.tar"])
def test_a_limit_of_class_folders_is_an_even_sample(tmp_path: Path, form: str) -> None:
    """The first N images were those of the first class alone."""
    path = str(pack(tmp_path / form, CLASSES))
    some = open_dataset(path, TOKBENCH, limit=6)
    assert some.names == EVEN and some.sampling == "even"
    assert (some.available, some.limited, len(some)) == (12, 6, 6)
    levels = next(iter(some.batches(6))).reference[:, 0, 0, 0] * 255
    assert levels.round().tolist() == [10, 12, 20, 22, 30, 32]
    first = open_dataset(path, TOKBENCH, limit=6, reading=ReadOptions(first=True))
    assert first.names == sorted(CLASSES)[:6] and first.sampling == "first"
    assert open_dataset(path, TOKBENCH, limit=12).sampling == "first"
    assert open_dataset(path, TOKBENCH, limit=5).names == [sorted(CLASSES)[i] for i in (0, 2, 4, 7, 9)]
    assert open_dataset(path, TOKBENCH).name == some.name
    known = ClassNames(["n01", "n02", "n03"], "here")
    assert find_labels(some, 3, known).facts(some.names)["present"] == 3


@pytest.mark.parametrize(
    "members",
    [
        {f"{i}.png": solid(i) for i in range(6)},
        {f"one/{i}.png": solid(i) for i in range(6)},
        {"0.png": solid()} | {f"more/{i}.png": solid(i) for i in range(6)},
    ],
)
def test_other_folders_give_the_first_images(tmp_path: Path, members: dict[str, bytes]) -> None:
    path = write_files(tmp_path / "set", members)
    dataset = open_dataset(str(path), TOKBENCH, limit=2)
    assert (dataset.names, dataset.sampling) == (sorted(members)[:2], "first")


def test_sources_with_an_order_of_their_own_give_the_first_images(tmp_path: Path) -> None:
    write_files(tmp_path, CLASSES | {"a.npz": npz_bytes(arr_0=np.zeros((4, 8, 8, 3), np.uint8))})
    (tmp_path / "list.txt").write_text("".join(f"{name}\n" for name in reversed(CLASSES)))
    rows = [{"bytes": content, "path": name} for name, content in CLASSES.items()]
    for path in (tmp_path / "list.txt", write_parquet(tmp_path / "a.parquet", rows), tmp_path / "a.npz"):
        dataset = open_dataset(str(path), TOKBENCH, limit=2)
        assert dataset.names == dataset.source.names[:2] and dataset.sampling == "first"
    named = open_dataset("samples", TOKBENCH, limit=5)
    assert named.sampling == "first" and named.names == open_dataset("samples", TOKBENCH).names[:5]


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Three class folders of four noisy gradients."""
    for number in range(3):
        write_gradients(tmp_path / "set" / f"n0{number}", 4 + number)
    return tmp_path / "set"


def test_results_record_the_sampling_and_the_check_repeats_it(classes: Path, tmp_path: Path, cli) -> None:
    out, images = tmp_path / "res", ("--data", classes, "--limit", "5")
    for how in ((), ("--first",)):
        done = cli("eval", "jpeg.q50", *images, *how, "--metrics", "psnr", "--out", out)
        assert done.exit_code == 0, done.stderr
    even, first = sorted((load(path) for path in out.rglob("*.json")), key=lambda one: one.path.name)
    assert (even.provenance["data"]["sampling"], first.provenance["data"]["sampling"]) == ("even", "first")
    assert ".even5-" in even.path.name and ".n5-" in first.path.name
    assert even.per_image["name"].tolist() == [sorted_names(classes)[i * 15 // 5] for i in range(5)]
    assert first.per_image["name"].tolist() == sorted_names(classes)[:5]
    for more in ((), ("--limit", "2")):
        again = cli("check", "--data", classes, "--against", out, *more, "--json")
        assert again.exit_code == 0, again.output
        found = json.loads(again.stdout)
        assert len({one["result"] for one in found["checks"]}) == 2
        assert {one["outcome"] for one in found["checks"]} == {"same"}


def test_results_without_a_sampling_are_of_the_first_images(classes: Path, tmp_path: Path, cli) -> None:
    """Results of earlier versions record only the limit."""
    out = tmp_path / "res"
    assert cli("eval", "jpeg.q50", "--data", classes, "--limit", "5", "--first", "--metrics", "psnr",
               "--out", out).exit_code == 0  # fmt: skip
    (file,) = out.rglob("*.json")
    facts = json.loads(file.read_text())
    del facts["provenance"]["data"]["sampling"]
    file.write_text(json.dumps(facts))
    again = cli("check", "--data", classes, "--against", out)
    assert again.exit_code == 0, again.output
    facts["provenance"]["data"]["sampling"] = "random"
    with pytest.raises(ResultError, match=r"provenance\.data\.sampling"):
        check(facts, file)


def test_statistics_record_the_sampling_and_verify_repeats_it(classes: Path, tmp_path: Path, cli) -> None:
    common = ("--data", classes, "--limit", "5", "--network", "efficientnet-lite0", "--layers", "pooled")
    for number, how in enumerate(((), ("--first",))):
        file = tmp_path / f"{number}.npz"
        done = cli("stats", "make", *common, *how, "--out", file)
        assert done.exit_code == 0, done.output
        assert f"sampling   {'first' if how else 'even'}" in cli("stats", "show", file).stdout
        done = cli("stats", "verify", file, "--data", classes)
        assert done.exit_code == 0 and "equal" in done.output, done.output
    assert load_statistics(tmp_path / "0.npz").data != load_statistics(tmp_path / "1.npz").data


def sorted_names(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
