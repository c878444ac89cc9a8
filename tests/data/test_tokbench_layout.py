"""TokBench's layout of folders and JSON files: what is read, what is cut, what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from tokbench.data.annotations import Annotations, Face, Word
from tokbench.data.sources import tokbench
from tokbench.data.sources.annotated import open_layout
from tokbench.data.sources.tokbench import read_layout
from tokbench.errors import DataError

SAMPLE = Path(os.environ.get("TOKBENCH_DATA", "")) / "tokbench-sample"
POINTS = [[3, 3], [6, 3], [5, 5], [3, 7], [6, 7.5]]


def word(text: str = "hi", box: object = (2, 2, 8, 6), ratio: object = 0.15) -> dict[str, object]:
    return {"rec": text, "bbox": box, "ratio": ratio}


def face(**changed: object) -> dict[str, object]:
    return {"box": [2, 1, 8, 9], "kps": POINTS, "ratio": 0.4, "gt": None, **changed}


class Layout:
    """A folder in TokBench's layout: sets `one` (a.png, b.png) and `two` (a.png), faces f.png; all images 20x10."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "annotations").mkdir()
        for place in ("text_data/one/a", "text_data/one/b", "text_data/two/a", "face_data/f"):
            file = root / "images" / f"{place}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 10)).save(file)
        self.text("one", [("b.png", [word()]), ("a.png", [word("x"), word("y")])])
        self.text("two", [("a.png", [word("z")])])
        self.faces([("f.png", [face(gt="ann")])])

    def text(self, name: str, entries: list[tuple[object, object]], **changed: object) -> None:
        self.write(
            f"text_{name}",
            [{"file_name": f, "width": 20, "height": 10, "annotations": w, **changed} for f, w in entries],
        )

    def faces(self, entries: list[tuple[str, object]]) -> None:
        self.write(
            "face_meta", [{"image_name": f, "img_width": 20, "img_height": 10, "faces": items} for f, items in entries]
        )

    def write(self, name: str, content: object) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        (self.root / "annotations" / f"{name}.json").write_text(text)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def test_every_set_or_one_is_read_in_the_order_of_its_file(layout: Layout) -> None:
    assert read_layout(layout.root, "text").names == ["one/b.png", "one/a.png", "two/a.png"]
    assert read_layout(layout.root, "text/two").names == ["two/a.png"]
    source = open_layout(layout.root, "text")
    assert source.names == ["one/b.png", "one/a.png", "two/a.png"]
    assert source.annotations(1) == Annotations((Word("x", (2, 2, 8, 6), 0.15), Word("y", (2, 2, 8, 6), 0.15)))
    assert source.open(1).size == (20, 10)


def test_faces_lie_in_wflw_or_beside_it(layout: Layout) -> None:
    expected = Face((2, 1, 8, 9), tuple((float(x), float(y)) for x, y in POINTS), 0.4, "ann")
    assert open_layout(layout.root, "faces").annotations(0) == Annotations(faces=(expected,))
    images = layout.root / "images" / "face_data"
    (images / "wflw").mkdir()
    (images / "f.png").rename(images / "wflw" / "f.png")
    source = open_layout(layout.root, "faces")
    assert source.names == ["f.png"] and source.annotations(0) == Annotations(faces=(expected,))


def test_only_annotated_images_are_read(layout: Layout) -> None:
    layout.text("one", [("a.png", [word()])])
    assert open_layout(layout.root, "text/one").names == ["one/a.png"]


def test_words_without_text_are_left_out_and_counted(layout: Layout) -> None:
    layout.text("one", [("a.png", [word(""), word("x"), word(" ", ratio=None)])])
    read = read_layout(layout.root, "text/one")
    assert [w.text for w in read.annotations["one/a.png"].words] == ["x"] and read.wordless == 2


def test_boxes_end_at_the_edge_of_the_image(layout: Layout) -> None:
    layout.text("one", [("a.png", [word(box=[-3, -2, 25, 12], ratio=0.7), word(box=[0, 0, 20, 10])])])
    read = read_layout(layout.root, "text/one")
    assert [w.box for w in read.annotations["one/a.png"].words] == [(0, 0, 20, 10)] * 2
    assert read.annotations["one/a.png"].words[0].ratio == 0.7  # as it was published
    assert read.clipped == 1
    layout.faces([("f.png", [face(box=[-3.5, 1, 8, 9], kps=[[-1, 3], *POINTS[1:]])])])
    (read,) = read_layout(layout.root, "faces").annotations["f.png"].faces
    assert read.box == (0, 1, 8, 9) and read.points[0] == (-1, 3)


def test_entries_of_one_image_are_joined(layout: Layout) -> None:
    layout.text("one", [("a.png", [word("x")]), ("b.png", []), ("a.png", [word("y")])])
    found = read_layout(layout.root, "text/one").annotations
    assert [w.text for w in found["one/a.png"].words] == ["x", "y"] and found["one/b.png"] == Annotations()


@pytest.mark.parametrize("identity", [None, 3, [1, 2], True])
def test_gt_that_is_no_text_is_no_identity(layout: Layout, identity: object) -> None:
    layout.faces([("f.png", [face(gt=identity)])])
    assert read_layout(layout.root, "faces").annotations["f.png"].faces[0].identity is None


@pytest.mark.parametrize(
    ("name", "items", "message"),
    [
        ("absent.png", [word()], r"text_one.json: absent.png is annotated, but .*absent.png is missing; copy"),
        ("a.png", [word(box=[2, 2, 2, 6])], r"text_one.json: a.png: annotations\[0\].bbox \[.*\] has no area; correct"),
        ("a.png", [word(), word(box=[20, 2, 30, 6])], r"a.png: annotations\[1\].bbox .* is outside its 20x10 image"),
        ("a.png", [word(box=[-9, 2, 0, 6])], r"is outside its 20x10 image"),
        ("a.png", [word(box=[1, 2, 3])], r"a.png: annotations\[0\].bbox must be four numbers"),
        ("a.png", [word(box=[1, 2, "3", 4])], r"bbox must be a finite number"),
        ("a.png", [word(ratio=None)], r"a.png: annotations\[0\].ratio must be a finite number"),
        ("a.png", [{"rec": "hi"}], r"annotations\[0\] must be an object with a field bbox"),
        ("a.png", [7], r"annotations\[0\] must be an object with a field rec"),
        ("a.png", "words", r"a.png: annotations must be a list"),
        (7, [], r"entry 0's name must be text"),
        ("", [], r"is not a path below"),
        (".", [], r"is not a path below"),
        ("../two/a.png", [], r"is not a path below"),
        ("x/../a.png", [], r"is not a path below"),
        ("/etc/passwd", [], r"is not a path below"),
        ("C:a.png", [], r"is not a path below"),
        ("..\\a.png", [], r"is not a path below"),
        ("a\0.png", [], r"is not a path below"),
        ("a" * 300, [], r"is not a path below"),
    ],
)
def test_a_wrong_entry_is_named(layout: Layout, name: object, items: object, message: str) -> None:
    layout.text("one", [(name, items)])
    with pytest.raises(DataError, match=message):
        read_layout(layout.root, "text/one")


@pytest.mark.parametrize("side", [0, -1, 20.0, True, None, 10**9])
def test_a_wrong_size_is_named(layout: Layout, side: object) -> None:
    layout.text("one", [("a.png", [word()])], width=side)
    with pytest.raises(DataError, match=r"text_one.json: a.png: width must be a number of pixels"):
        read_layout(layout.root, "text/one")


@pytest.mark.parametrize("kps", [[], POINTS[:4], [*POINTS[:4], [1, None]], "points"])
def test_wrong_points_are_named(layout: Layout, kps: object) -> None:
    layout.faces([("f.png", [face(kps=kps)])])
    with pytest.raises(DataError, match=r"face_meta.json: f.png: faces\[0\].kps must be"):
        read_layout(layout.root, "faces")


@pytest.mark.parametrize(
    "content", ["", "{", "[" * 100_000, "{}", "3", '[{"a": NaN}]', "[[]]", '[{"file_name": "a.png"}]']
)
def test_a_file_that_is_no_list_of_images_is_refused(layout: Layout, content: str) -> None:
    layout.write("text_one", content)
    with pytest.raises(DataError, match=r"text_one.json.*(copy|correct)"):
        read_layout(layout.root, "text/one")


def test_a_huge_file_is_never_read(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokbench, "MAX_BYTES", 10)
    with pytest.raises(DataError, match="over the limit of 10 for annotations"):
        read_layout(layout.root, "text/one")


def test_what_is_not_there_is_named(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"text_three.json is missing"):
        read_layout(layout.root, "text/three")
    with pytest.raises(DataError, match=r"contains no text_<set>.json"):
        read_layout(tmp_path / "nowhere", "text")
    for part in ("", "words", "faces/wflw", "text/../../x", "text/a b"):
        with pytest.raises(DataError, match="no part"):
            read_layout(layout.root, part)


@pytest.mark.finds
@pytest.mark.skipif(not SAMPLE.is_dir(), reason="no tokbench-sample/ in TOKBENCH_DATA")
@pytest.mark.parametrize(
    ("part", "images", "words", "faces", "clipped"), [("text", 120, 856, 0, 0), ("faces", 64, 0, 69, 2)]
)
def test_the_sample_is_whole(part: str, images: int, words: int, faces: int, clipped: int) -> None:
    source = open_layout(SAMPLE, part)
    known = [source.annotations(position) for position in range(len(source.names))]
    counts = (len(known), sum(len(one.words) for one in known), sum(len(one.faces) for one in known))
    assert counts == (images, words, faces)
    assert read_layout(SAMPLE, part).clipped == clipped
    for position in range(0, images, 16):
        source.open(position)  # whose size is then that of the annotations
