"""`tokbench prune`: labels of images, warnings about them, and images that cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from tokbench.pruning.benchmark import BenchmarkConfig
from tokbench.pruning.classifier.benchmark import ClassifierBenchmark
from tokbench.pruning.classifier.models import load_classifier, open_labelled
from tokbench.pruning.result import load_all

Prune = Callable[..., Result]

pytestmark = pytest.mark.slow

timm = pytest.importorskip("timm", reason="timm is not installed: pip install 'tokbench[prune]'")


def test_images_without_labels_are_refused(prune: Prune, tmp_path: Path) -> None:
    done = prune("random", "--out", str(tmp_path), data="bare.parquet")
    assert done.exit_code == 1 and "has no labels, so its accuracy cannot be computed; provide Parquet" in done.output


def test_a_subset_of_the_classes_is_enough_and_reported(prune: Prune, tmp_path: Path) -> None:
    words = ["random", "--keep", "0.5", "--batches", "0", "--out", str(tmp_path)]
    done = prune(*words, data="three.parquet")
    assert done.exit_code == 0, done.output
    assert "labels: column 'label'; 3 of 4 classes occur" in done.stderr
    assert "warning: the labels are exactly 0 to 2, but" in done.stderr
    assert "Labels: column 'label'; 3 of 4 classes occur." in done.stdout
    assert "**Warning:** the labels are exactly 0 to 2" in done.stdout
    (one,) = load_all(tmp_path)
    labels = one.about["provenance"]["labels"]
    assert (labels["present"], labels["classes"], len(labels["warnings"])) == (3, 4, 1)


@pytest.mark.parametrize("listed", [False, True])
def test_class_folders_give_the_same_accuracy_as_a_column(
    pruning_root: Path, prune: Prune, tmp_path: Path, listed: bool
) -> None:
    """Folders are matched in sorted order, or by a list of classes, which may have fewer than the network."""
    rows = pq.read_table(pruning_root / "images.parquet").to_pylist()
    kept = [row for row in rows if row["label"] != 2] if listed else rows
    folders = ["d", "b", "a", "c"] if listed else ["a", "b", "c", "d"]
    for row in kept:
        place = tmp_path / "photos" / folders[row["label"]]
        place.mkdir(parents=True, exist_ok=True)
        (place / row["image"]["path"]).write_bytes(row["image"]["bytes"])
    if listed:
        (tmp_path / "photos" / "classes.txt").write_text("\n".join(folders))
    pq.write_table(pa.Table.from_pylist(kept), tmp_path / "same.parquet")
    found = []
    for data in ("photos", "same.parquet"):
        words = ["random", "--keep", "1", "--batches", "0", "--out", str(tmp_path / f"of-{data}")]
        done = prune(*words, data=str(tmp_path / data))
        assert done.exit_code == 0, done.output
        (one,) = load_all(tmp_path / f"of-{data}")
        found.append(one)
    ours, theirs = (one.rows["1"].top1.value for one in found)
    assert ours == pytest.approx(theirs) and 0 <= ours <= 1
    rule = "names of folders, in the order of classes.txt" if listed else "the 4 folders in sorted order, as"
    assert found[0].about["provenance"]["labels"]["rule"].startswith(rule)
    assert found[0].about["provenance"]["labels"]["present"] == (3 if listed else 4)


def test_first_images_of_one_class_or_of_few_give_no_number_without_a_word(
    pruning_root: Path, prune: Prune, tmp_path: Path
) -> None:
    for row in pq.read_table(pruning_root / "images.parquet").to_pylist():
        place = tmp_path / "photos" / "abcd"[row["label"]]
        place.mkdir(parents=True, exist_ok=True)
        (place / row["image"]["path"]).write_bytes(row["image"]["bytes"])
    words = ["random", "--keep", "1", "--batches", "0", "--out", str(tmp_path / "out"), "--first", "--limit"]
    done = prune(*words, "5", data=str(tmp_path / "photos"))
    assert done.exit_code == 1 and not (tmp_path / "out").exists()
    assert "its first 5 images all have the class 0, but all 24 images have 4 classes" in done.output
    done = prune(*words, "12", data=str(tmp_path / "photos"))
    warning = "the first 12 of 24 images have 2 of 4 classes, and the shares of the classes differ"
    assert done.exit_code == 0 and f"warning: {warning}" in done.stderr and f"**Warning:** {warning}" in done.stdout
    (one,) = load_all(tmp_path / "out")
    assert any(text.startswith(warning) for text in one.about["provenance"]["labels"]["warnings"])


def test_labels_under_which_a_trained_network_is_no_better_than_chance_are_doubted(
    pruning_root: Path, prune: Prune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = load_classifier("small.whole", "cpu", pruning_root)
    bench = ClassifierBenchmark(
        subject, open_labelled(str(pruning_root / "images.parquet"), subject, None), "cpu", BenchmarkConfig()
    )
    bench.measure_full(lambda what, done, total: None)
    named = bench.full.top[:, 0]
    wrong = (named + 1 + np.arange(24) % 2) % 4
    table_ = (
        pq.read_table(pruning_root / "images.parquet").drop_columns(["label"]).append_column("label", pa.array(wrong))
    )
    pq.write_table(table_, tmp_path / "wrong.parquet")
    words = ["random", "--keep", "1", "--batches", "0", "--out", str(tmp_path)]
    warning = "0 % of 24 images are classified correctly, but chance is 25 %: are the labels those of this network?"
    assert warning not in prune(*words, data=str(tmp_path / "wrong.parquet")).output  # trained for two steps
    monkeypatch.setattr(ClassifierBenchmark, "short", False)
    done = prune(*words, data=str(tmp_path / "wrong.parquet"))
    assert done.exit_code == 0 and f"warning: {warning}" in done.stderr and f"**Warning:** {warning}" in done.stdout
    (one,) = load_all(tmp_path)
    assert one.about["provenance"]["labels"]["warnings"][-1] == warning


def test_images_that_cannot_be_read_are_listed_and_left_out_of_both(
    pruning_root: Path, prune: Prune, tmp_path: Path
) -> None:
    table_ = pq.read_table(pruning_root / "images.parquet").to_pylist()
    table_[3]["image"]["bytes"] = b"no image"
    pq.write_table(pa.Table.from_pylist(table_), tmp_path / "bad.parquet")
    done = prune("random", "--keep", "0.5", "--out", str(tmp_path), data=str(tmp_path / "bad.parquet"))
    assert done.exit_code == 1 and "unreadable image" in done.output
    (one,) = load_all(tmp_path)
    assert one.about["num_images"] == 23
    for row in table_:
        row["image"]["bytes"] = b"no image"
    pq.write_table(pa.Table.from_pylist(table_), tmp_path / "none.parquet")
    done = prune("random", "--out", str(tmp_path), data=str(tmp_path / "none.parquet"))
    assert done.exit_code == 1 and "no image could be read" in done.output
