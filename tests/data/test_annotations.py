"""Annotations as JSON, what is refused there, and TokBench's ratios, recomputed from its own boxes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tokbench.data.annotations import Annotations, Face, Word, parse, ratio_of_face, ratio_of_word
from tokbench.errors import DataError

SAMPLE = Path(os.environ.get("TOKBENCH_DATA", "")) / "tokbench-sample"
POINTS = ((30.5, 40.0), (70.0, 41.0), (50.0, 60.0), (35.0, 80.0), (66.0, 79.25))


def read(text: str, name: str) -> Annotations:
    return Annotations.from_plain(parse(text, name), name)


@pytest.fixture
def known() -> Annotations:
    return Annotations(
        (Word("24/7", (1.0, 2.0, 41.0, 12.5), 0.01), Word('Ünï "q"\\', (0.0, 0.0, 5.0, 5.0), 0.5)),
        (Face((10.0, 20.0, 90.0, 110.0), POINTS, 0.3, "a"), Face((0.0, 0.0, 9.0, 9.0), POINTS, 0.1)),
    )


def test_json_brings_back_what_it_was_given(known: Annotations) -> None:
    assert read(known.to_json(), "x") == known
    assert read("{}", "x") == Annotations()
    assert "\n" not in known.to_json() and ": " not in known.to_json()
    assert known.to_json().isascii()  # no file system or terminal can spoil it


def test_json_keeps_every_bit_of_a_number() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        x, y = random.uniform(-1e3, 1e3, 2)
        word = Word("w", (x, y, x + random.exponential(50) + 1e-3, y + 1.0), float(random.exponential()) + 1e-9)
        assert read(Annotations((word,)).to_json(), "x").words == (word,)


def test_the_digest_is_that_of_the_meaning(known: Annotations) -> None:
    whole = Annotations((Word("24/7", (1, 2, 41, 12.5), 0.01), known.words[1]), known.faces)
    assert whole.to_json() == known.to_json() and whole.digest() == known.digest()
    moved = replace(known, words=(replace(known.words[0], ratio=0.011), known.words[1]))
    assert moved.digest() != known.digest()
    assert replace(known, words=known.words[::-1]).digest() != known.digest()
    # Results hold these digests, so the form of the JSON is fixed.
    assert Annotations((Word("a", (1, 2, 3, 4), 0.5),)).to_json() == (
        '{"words":[{"text":"a","box":[1,2,3,4],"ratio":0.5}],"faces":[]}'
    )


WORD = {"text": "a", "box": [1, 2, 3, 4], "ratio": 0.5}
FACE = {"box": [1, 2, 3, 4], "points": [list(point) for point in POINTS], "ratio": 0.5, "identity": None}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("text", 5, r"img: words\[0\].text must be text"),
        ("text", "", r"img: words\[0\].text is empty"),
        ("text", "\ud800", r"img: words\[0\].text contains half a character"),
        ("box", [1, 2, 3], r"img: words\[0\].box must be four numbers"),
        ("box", "1234", r"img: words\[0\].box must be four numbers"),
        ("box", [1, 2, True, 4], r"img: words\[0\].box must be a finite number, not True"),
        ("box", [1, 2, "3", 4], r"img: words\[0\].box must be a finite number"),
        ("box", [1, 2, None, 4], r"img: words\[0\].box must be a finite number"),
        ("box", [1, 2, 10**400, 4], r"img: words\[0\].box must be a finite number"),
        ("box", [3, 2, 3, 4], r"img: words\[0\].box has no area"),
        ("box", [1, 4, 3, 2], r"img: words\[0\].box has no area"),
        ("ratio", 0, r"img: words\[0\].ratio must be above 0"),
        ("ratio", [0.5], r"img: words\[0\].ratio must be a finite number"),
        ("colour", "red", r"img: words\[0\] has an unknown field 'colour'"),
        ("points", [[1, 2]] * 4, r"img: faces\[0\].points must be five pairs"),
        ("points", [[1, 2]] * 4 + [[1]], r"img: faces\[0\].points must be five pairs"),
        ("points", [[1, 2]] * 4 + [[1, "2"]], r"img: faces\[0\].points must be a finite number"),
        ("identity", 7, r"img: faces\[0\].identity must be text"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object, message: str) -> None:
    entry = (
        {"faces": [{**FACE, field: value}]} if field in ("points", "identity") else {"words": [{**WORD, field: value}]}
    )
    with pytest.raises(DataError, match=message):
        read(json.dumps(entry), "img")


@pytest.mark.parametrize("field", ["text", "box", "ratio"])
def test_a_missing_field_is_named(field: str) -> None:
    entry = {key: value for key, value in WORD.items() if key != field}
    with pytest.raises(DataError, match=rf"img: words\[0\] lacks {field}"):
        read(json.dumps({"words": [entry]}), "img")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "img: not readable as JSON"),
        ("{", "img: not readable as JSON"),
        ("[" * 100_000, "img: not readable as JSON .*nesting is too deep"),
        ('{"words": [], "words": []}', "'words' is repeated"),
        (json.dumps({"words": [WORD]}).replace("0.5", "NaN"), "NaN is not a JSON number"),
        (json.dumps({"words": [WORD]}).replace("0.5", "-Infinity"), "-Infinity is not a JSON number"),
        (json.dumps({"words": [WORD]}).replace("0.5", "1e999"), r"ratio must be a finite number"),
        (json.dumps({"words": [WORD]}).replace("0.5", "9" * 5000), "img: not readable as JSON"),
        ("[]", "img must be an object"),
        ("null", "img must be an object"),
        ('{"words": {}}', "img: words must be a list"),
        ('{"words": null}', "img: words must be a list"),
        ('{"faces": [[]]}', r"img: faces\[0\] must be an object"),
        (json.dumps({"faces": [FACE | {"points": [[3, 4]] * 5}]}), "points are all equal to"),
        ('{"word": []}', "img has an unknown field 'word'"),
    ],
)
def test_what_is_no_annotation_is_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(text, "img")


def test_a_number_that_is_none_is_never_written() -> None:
    with pytest.raises(ValueError):
        Annotations((Word("a", (0, 0, float("nan"), 1), 0.5),)).to_json()


def test_ratios_do_not_change_when_the_image_is_scaled() -> None:
    assert ratio_of_word((10, 20, 60, 40), "hello", (1000, 500)) == 0.01
    assert ratio_of_word((20, 40, 120, 80), "hello", (2000, 1000)) == 0.01
    assert ratio_of_word((20, 10, 40, 60), "hello", (500, 1000)) == 0.01  # written downwards
    assert ratio_of_word((0, 0, 30, 10), "a b", (100, 100)) == 0.1  # the blank is a character
    assert ratio_of_face((10, 10, 30, 50), (200, 400)) == ratio_of_face((10, 10, 50, 30), (400, 200)) == 0.1
    with pytest.raises(DataError, match="without characters"):
        ratio_of_word((0, 0, 30, 10), "", (100, 100))


sample = pytest.mark.skipif(
    not (SAMPLE / "annotations").is_dir(),
    reason="no tokbench-sample/ in TOKBENCH_DATA: TokBench's own ratios are in it",
)


@pytest.mark.finds
@sample
def test_the_rule_for_words_gives_every_published_ratio_exactly() -> None:
    longest = widest = total = 0
    for entry in json.loads((SAMPLE / "annotations" / "text_ic15.json").read_text()):
        for word in entry["annotations"]:
            size = (entry["width"], entry["height"])
            x1, _, x2, _ = word["bbox"]
            total += 1
            longest += ratio_of_word(word["bbox"], word["rec"], size) == word["ratio"]
            widest += (x2 - x1) / len(word["rec"]) / max(size) == word["ratio"]
    assert (total, longest, widest) == (856, 856, 773)


@pytest.mark.finds
@sample
def test_the_rule_for_faces_gives_every_published_ratio_exactly() -> None:
    entries = json.loads((SAMPLE / "annotations" / "face_meta.json").read_text())
    faces = [(face, (entry["img_width"], entry["img_height"])) for entry in entries for face in entry["faces"]]
    assert len(faces) == 69
    assert all(ratio_of_face(face["box"], size) == face["ratio"] for face, size in faces)
