"""Annotated images: the source, the file of annotations, the two embedded datasets."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tokbench.data.annotations import Annotations, Word, ratio_of_face, ratio_of_word
from tokbench.data.sources import annotated
from tokbench.data.sources.annotated import AnnotatedSource, annotate, annotation_lines, read_annotations
from tokbench.data.sources.folder import Folder
from tokbench.data.sources.manifest import Manifest
from tokbench.errors import DataError, UnreadableImage

ONE, TWO = Annotations((Word("one", (0, 0, 5, 5), 0.1),)), Annotations((Word("two", (0, 0, 6, 6), 0.1),))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three grey images of 20x10: a, b and c, as bright as 10, 20 and 30."""
    (tmp_path / "images").mkdir()
    for number, name in enumerate("abc", 1):
        Image.new("RGB", (20, 10), (10 * number,) * 3).save(tmp_path / "images" / f"{name}.png")
    return tmp_path / "images"


def test_annotations_follow_their_images(folder: Path) -> None:
    source = AnnotatedSource(Folder(folder), {"c.png": TWO, "a.png": ONE})
    assert [source.annotations(i) for i in range(3)] == [ONE, None, TWO]
    source.reorder([2, 0])
    assert source.names == ["c.png", "a.png"]
    assert [source.annotations(i) for i in range(2)] == [TWO, ONE]
    assert [source.open(i).getpixel((0, 0))[0] for i in range(2)] == [30, 10]
    assert source.size(0) == (20, 10)
    assert source.read(1) == (folder / "a.png").read_bytes()


def test_other_annotations_are_another_dataset(folder: Path) -> None:
    """`listing` identifies a dataset without a name."""
    listings = [
        AnnotatedSource(Folder(folder), found).listing() for found in ({"a.png": ONE}, {"a.png": TWO}, {"b.png": ONE})
    ]
    assert listings[0] != listings[1]
    assert listings[0] == AnnotatedSource(Folder(folder), {"a.png": ONE}).listing()


def test_an_image_of_another_size_is_a_bad_image(folder: Path) -> None:
    source = AnnotatedSource(Folder(folder), {"a.png": ONE, "b.png": ONE}, {"a.png": (20, 10), "b.png": (40, 20)})
    assert source.open(0).size == (20, 10)
    with pytest.raises(UnreadableImage, match=r"b.png: 20x10 pixels, but its annotations are for 40x20; restore"):
        source.open(1)


def test_annotations_of_absent_images_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"2 annotated images are missing, the first of them x.png"):
        AnnotatedSource(Folder(folder), {"a.png": ONE, "x.png": ONE, "y.png": ONE})


def test_lines_bring_back_what_they_were_given(folder: Path, tmp_path: Path) -> None:
    found = {"a.png": ONE, 'ö"\\.png': Annotations(), "c/d.png": TWO}
    path = tmp_path / "annotations.jsonl"
    path.write_text(annotation_lines(found.items()))
    assert read_annotations(path) == found
    assert list(read_annotations(path)) == list(found)
    path.write_text(annotation_lines([("a.png", ONE)]))
    assert annotate(Folder(folder), path).annotations(0) == ONE


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xfe", "cannot be read"),
        (b"{}\n", "line 1 must be an object with the name"),
        (b"[]\n", "line 1 must be an object with the name"),
        (b'{"name": 3}\n', "line 1 must be an object with the name"),
        (b'{"name": "a"}\n{"name": "a"}\n', "line 2: 'a' is annotated twice"),
        (b'{"name": "a"}\n{"name": "b", "words": 3}\n', "annotations.jsonl: b: words must be a list"),
        (b'{"name": "a"', "line 1: not readable as JSON"),
    ],
)
def test_broken_lines_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "annotations.jsonl"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_annotations(path)


def test_huge_files_are_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "annotations.jsonl"
    path.write_text(annotation_lines([("a", ONE)]))
    monkeypatch.setattr(annotated, "MAX_BYTES", 10)
    with pytest.raises(DataError, match="over the limit of 10"):
        read_annotations(path)


def embedded(root: Path, name: str) -> AnnotatedSource:
    folder = root / "datasets" / name
    return annotate(Manifest(folder / "manifest.csv"), folder / "annotations.jsonl")


def test_text_has_as_many_words_in_every_band_of_size(root: Path) -> None:
    source = embedded(root, "text")
    words = [word for position in range(len(source.names)) for word in source.annotations(position).words]
    bands = Counter(int(np.searchsorted((0.005, 0.01, 0.02, 0.03, 0.04), word.ratio, "right")) for word in words)
    assert len(words) == 823
    assert sorted(bands) == [1, 2, 3, 4, 5] and max(bands.values()) - min(bands.values()) <= 10
    assert all(len(word.text) > 1 and word.text.isascii() and " " not in word.text for word in words)


def test_text_boxes_are_whole_apart_and_rated_by_the_rule(root: Path) -> None:
    source = embedded(root, "text")
    for position in range(len(source.names)):
        words = source.annotations(position).words
        for number, one in enumerate(words):
            x1, y1, x2, y2 = one.box
            assert 0 <= x1 < x2 <= 512 and 0 <= y1 < y2 <= 512
            assert one.ratio == ratio_of_word(one.box, one.text, (512, 512))
            for other in words[:number]:
                a, b = one.box, other.box
                assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (
                    source.names[position],
                    one,
                    other,
                )


def test_text_boxes_are_tight_around_the_ink(root: Path) -> None:
    """On pages of one colour, what differs from it fills each box up to 1 to 3 pixels and what WebP smears."""
    source = embedded(root, "text")
    checked = 0
    for number in range(0, 24, 3):
        position = source.names.index(f"pages/{number:02d}")
        pixels = np.asarray(source.open(position)).astype(int)
        ground = np.median(pixels.reshape(-1, 3), axis=0)
        for known in source.annotations(position).words:
            x1, y1, x2, y2 = (int(edge) for edge in known.box)
            distance = np.abs(pixels[y1:y2, x1:x2] - ground).max(2)
            rows, columns = np.nonzero(distance > 0.3 * distance.max())
            gaps = (columns.min(), rows.min(), x2 - x1 - 1 - columns.max(), y2 - y1 - 1 - rows.max())
            assert distance.max() > 40, (number, known)
            assert max(gaps) <= 4, (number, known, gaps)
            checked += 1
    assert checked > 100


@pytest.mark.skipif(find_spec("insightface") is None, reason="a photo of `faces` is inside the insightface wheel")
def test_faces_are_faces(root: Path) -> None:
    source = embedded(root, "faces")
    faces = []
    for position in range(len(source.names)):
        size = source.open(position).size  # checks the pixels against the manifest
        known = source.annotations(position).faces
        assert known
        for one in known:
            x1, y1, x2, y2 = one.box
            assert 0 <= x1 < x2 <= size[0] and 0 <= y1 < y2 <= size[1]
            assert all(x1 <= x <= x2 and y1 <= y <= y2 for x, y in one.points)
            left_eye, right_eye, nose, left_mouth, right_mouth = one.points
            assert left_eye[0] < right_eye[0] and left_mouth[0] < right_mouth[0]
            assert max(left_eye[1], right_eye[1]) < nose[1] < max(left_mouth[1], right_mouth[1])
            assert one.ratio == ratio_of_face(one.box, size)
        faces += known
    assert len(faces) == 31 and len({one.identity for one in faces}) == 6


@pytest.mark.parametrize("name", ["text", "faces"])
def test_manifest_and_annotations_list_the_same_images(root: Path, name: str) -> None:
    folder = root / "datasets" / name
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    assert list(read_annotations(folder / "annotations.jsonl")) == names


def test_text_is_what_make_says(root: Path) -> None:
    command = [sys.executable, str(root / "datasets" / "text" / "make.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "48 images" in done.stdout, done.stdout + done.stderr
