"""Result files of TokBench's evaluator: tables computed by hand, wrong stored scores, and invalid files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokbench.analysis import tokbench_import
from tokbench.analysis.tokbench_import import markdown, read, rows
from tokbench.cli.import_tokbench import import_tokbench
from tokbench.cli.options import Group
from tokbench.errors import ResultError
from tokbench.results import reported
from tokbench.stats.binned import FACE_BINS, TEXT_BINS

Write = Callable[..., Path]


def word(gt: str, pred: str, ratio: float, **stored: Any) -> dict[str, Any]:
    """Return a word as eval_text.py stores it; the scores must be given if the two texts differ in length."""
    same = sum(a == b for a, b in zip(gt, pred, strict=False))
    return {"gt": gt, "pred": pred, "ratio": ratio, "accuracy": int(gt == pred), "ned": same / len(gt)} | stored


def run(**images: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the words or faces of each image, with the summaries, which are not read."""
    details = {f"{name}.jpg": {"file_name": name, "avg_acc": 0, "results": found} for name, found in images.items()}
    return {"results": {"accuracy": "0.00%"}, "details": details}


IC13 = run(
    a=[word("Exit", "Exit", 0.02), word("OPEN", "OPEM", 0.025), word("sale", "SALE", 0.031)],
    b=[word("tiny", "xxxx", 0.019), word("large", "large", 0.5)],
)
TT = run(c=[word("half", "haxx", 0.0299), word("cafe", "cafes", 0.04, ned=4 / 5)], d=[word("whole", "whole", 1.0)])
FACES = run(
    e=[{"ratio": 0.05, "similarity": 0.1, "gt": "id1", "box": [0, 0, 1, 1]}, {"ratio": 0.15, "similarity": 0.3}],
    f=[{"ratio": 0.25, "similarity": 0.8}, {"ratio": 0.4, "similarity": 0.9}],
)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to(name: str, facts: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(facts if isinstance(facts, str) else json.dumps(facts), encoding="utf-8")
        return path

    return to


@pytest.fixture
def files(write: Write) -> list[Path]:
    return [
        write("ic13.json", {"vae": {"256": IC13}}),
        write("tt.json", {"vae": {"tt_256": TT}}),  # older logs name the set in the setting
        write("face.json", {"vae": {"256": FACES}}),
    ]


def command(*arguments: object) -> Result:
    group = Group()
    group.add_command(import_tokbench)
    return CliRunner().invoke(group, ["import-tokbench", *map(str, arguments)])


def cells(text: str, title: str) -> list[list[str]]:
    """Return the cells of the table below a title."""
    lines = text.split(f"## {title}\n\n")[1].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("|:")]


def test_the_table_by_hand(files: list[Path]) -> None:
    """`Exit`, `OPEN` and `half` are small, `sale` is medium, `large` and `cafe` are large; the others do not count."""
    text = command(*files).output
    head, body = cells(text, "Words at 256 (bins of both releases)")
    assert head[:4] == ["method", "sets", "n", "T-ACC [0.02, 0.03) ↑"]
    assert body[:3] == ["vae", "2", "3 / 1 / 2"]
    assert body[3:7] == ["33.33", "0.00", "50.00", "27.78"]
    # (1 + 3/4 + 2/4) / 3, 0, (1 + 4/5) / 2
    assert body[7:] == ["75.00", "0.00", "90.00", "55.00"]
    assert "0 of 8 words have stored scores that differ from the recomputed ones." in text
    first, second = (cells(text, f"Faces at 256 (bins of {release})")[1] for release in FACE_BINS)
    assert first[2:] == ["1 / 1 / 2", "10.00", "30.00", "85.00", "41.67"]
    assert second[2:] == ["1 / 1 / 1", "30.00", "80.00", "90.00", "66.67"]


@pytest.mark.parametrize("side", TEXT_BINS)
def test_the_table_by_the_published_way(write: Write, side: int) -> None:
    """The table contains means of scores per bin and the mean over bins, as compute_all_metrics.py does."""
    rng = np.random.default_rng(side)
    stored = [
        run(**{str(i): [word("abcd", "ab" + "xc"[rng.integers(2)] + "xd"[rng.integers(2)], r)
                        for r in rng.uniform(0, 0.05, 5)] for i in range(40)})
        for _ in range(2)
    ]  # fmt: skip
    found = read([write(f"{i}.json", {"vae": {str(side): one}}) for i, one in enumerate(stored)])
    every = [one for part in stored for image in part["details"].values() for one in image["results"]]
    for row, key in zip(rows(found), ("accuracy", "ned"), strict=True):
        edges = [(one.low, one.high) for one in TEXT_BINS[side]]
        means = [np.mean([one[key] for one in every if low <= one["ratio"] < high]) for low, high in edges]
        assert [one.mean for one in row.bins] == pytest.approx(means, abs=1e-14)
        assert row.mean.mean == pytest.approx(np.mean(means), abs=1e-14)
        assert all(one.low < one.mean < one.high for one in (*row.bins, row.mean))
    assert found[0].mismatches == 0


def test_images_of_a_name_in_two_sets_are_two(write: Write) -> None:
    one = run(a=[word("a", "a", 0.02), word("a", "b", 0.02)])
    (found,) = read([write("ic13.json", {"vae": {"256": one}}), write("tt.json", {"vae": {"256": one}})])
    assert found.images == [0, 0, 1, 1]


def test_scores_are_those_of_the_texts(write: Write) -> None:
    """Wrong stored scores are counted, the first one is named, and the table uses recomputed scores."""
    words = run(a=[word("ab", "ab", 0.02, accuracy=0), word("ab", "ax", 0.02, ned=0.4), word("ab", "ab", 0.02)])
    found = read([write("ic13.json", {"vae": {"256": words}})])
    assert (found[0].mismatches, found[0].scores["t_acc"]) == (2, [1, 0, 1])
    text = markdown(found, rows(found))
    assert "2 of 3 words have stored scores that differ" in text
    assert "ic13.json: 'vae/256/a.jpg/results[0]'" in text
    # Files that somebody rounded to seven digits are right.
    words = run(a=[word("abc", "abx", 0.02, ned=0.6666667)])
    assert read([write("tt.json", {"vae": {"256": words}})])[0].mismatches == 0


def test_two_methods_and_what_one_lacks(write: Write) -> None:
    """Each method has a row; methods with a missing set are named (compute_all_metrics.py drops or pools them)."""
    files = [write("ic13.json", {"a|b": {"256": IC13}, "vae": {"256": IC13, "480": IC13}})]
    files.append(write("tt.json", {"vae": {"256": TT}}))
    found = read(files)
    assert [(one.setting, one.method) for one in found] == [("256", "a|b"), ("256", "vae"), ("480", "vae")]
    text = markdown(found, rows(found))
    assert "| a\\|b " in text
    assert "Not comparable: 'a|b' at 256 lacks tt." in text
    assert "Not shown: 'vae' at 480, for which TokBench has no bins." in text


def test_an_empty_bin_is_no_zero(write: Write) -> None:
    path = write("ic13.json", {"vae": {"256": run(a=[word("a", "a", 0.02), word("a", "b", 0.5)])}})
    body = cells(command(path).output, "Words at 256 (bins of both releases)")[1]
    assert body[2:7] == ["1 / 0 / 1", "100.00", "-", "0.00", "-"]


def test_csv_says_that_it_is_reported(files: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "results" / "reported" / "tokbench.csv"
    done = command(*files, "--csv", target)
    assert done.exit_code == 0, done.output
    with target.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 4 + 2 * 4  # two scores of words in one release's bins, one of faces in two's; each a mean
    assert {line["status"] for line in lines} == {"reported"}
    small = lines[0]
    assert [small[key] for key in ("method", "setting", "sets", "score", "bin")] == [
        "vae", "256", "ic13 tt", "t_acc", "small",
    ]  # fmt: skip
    assert (small["n"], small["images"], float(small["value"])) == ("3", "2", 1 / 3)
    assert float(small["low"]) <= 1 / 3 <= float(small["high"])
    assert command(*files, "--csv", target).output == done.output


def test_reported_numbers_are_no_results(files: list[Path], tmp_path: Path) -> None:
    from tokbench.results.leaderboard import read_all

    command(*files, "--csv", tmp_path / "results" / "reported" / "tokbench.csv")
    with pytest.raises(ResultError, match="contains no results"):
        read_all(tmp_path / "results")


def test_reported_numbers_have_a_table_of_their_own(files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "results"
    assert reported.write(out) == []
    command(*files, "--csv", out / "reported" / "tokbench.csv")
    (path,) = reported.write(out)
    text = path.read_text(encoding="utf-8")
    assert "Reported, not measured here" in text
    assert "33.33" in next(line for line in text.splitlines() if line.startswith("| vae"))  # T-ACC of the small words
    assert text.count("## Faces at 256") == 2  # bins of two releases
    kept = out / "reported" / "tokbench.csv"
    kept.write_text(kept.read_text(encoding="utf-8").replace("reported", "measured", 1), encoding="utf-8")
    with pytest.raises(ResultError, match="not a table of reported values"):
        reported.write(out)
    kept.unlink()
    assert reported.write(out) == []
    assert not path.exists()


def broken(**changes: Any) -> dict[str, Any]:
    """Return a file with one word; the given fields are changed, or removed if the value is None."""
    changed = word("ab", "ab", 0.02) | changes
    kept = {key: value for key, value in changed.items() if value is not None}
    return {"vae": {"256": run(a=[kept])}}


AT = "'vae/256/a.jpg/results"


@pytest.mark.parametrize(
    ("facts", "complaint"),
    [
        ("", "is not a readable result file"),
        ("{", "is not a readable result file"),
        ("[" * 100_000, "nesting is too deep"),
        ('{"a": ' + "1" * 5000 + "}", "is not a readable result file"),
        ('{"a": {}, "a": {}}', "'a' is repeated"),
        ([], "its content must be an object"),
        ({}, "no methods found"),
        ({"vae": []}, "'vae' must be an object"),
        ({"vae": {"256": 3}}, "'vae/256' must be an object"),
        ({"vae": {"256": {}}}, "'vae/256/details' must be an object, but is None"),
        ({"vae": {"256": {"details": {}}}}, "contains no words or faces"),
        ({"vae": {"256": run(a=[])}}, "contains no words or faces"),
        ({"vae": {"256": {"details": {"a.jpg": []}}}}, "'vae/256/details/a.jpg' must be an object"),
        ({"vae": {"256": {"details": {"a.jpg": {}}}}}, "'vae/256/a.jpg/results' must be a list"),
        ({"vae": {"256": run(a=[3])}}, f"{AT}[0]' must be an object"),
        ({"\x1b[31m": {"256": IC13}}, "must be named in 1 to 200 printable"),
        ({"\ud800": {"256": IC13}}, "must be named"),
        ({"": {"256": IC13}}, "must be named"),
        ({"v" * 300: {"256": IC13}}, "must be named"),
        ({"vae": {"\n256": IC13}}, "must be named"),
        ({"vae": {"480": IC13}}, "TokBench has bins for settings 256, 512, 1024; these files contain 480"),
        ({"vae": {"256": IC13, "x_256": IC13}}, "'vae' at 256 on 'ic13' is already in"),
        ({"vae": {"256": run(a=[word("a", "a", 0.02)], b=[{"ratio": 1, "similarity": 1}])}}, "one of the words"),
        (broken(gt=None), f"{AT}[0]/gt' must be a string"),
        (broken(pred=["ab"]), f"{AT}[0]/pred' must be a string"),
        (broken(pred="x" * 1001), "at most 1,000 characters"),
        (broken(ratio="0.02"), f"{AT}[0]/ratio' must be a number"),
        (broken(ratio=-0.1), "must be a number from 0"),
        (broken(ratio=float("nan")), "must be a number from 0"),
        (broken(ratio=10**400), "must be a number from 0"),
        (broken(accuracy=None), f"{AT}[0]/accuracy' must be a number"),
        (broken(ned=1.5), f"{AT}[0]/ned' must be a number from 0 to 1"),
        ({"vae": {"256": run(a=[{"ratio": 0.1, "similarity": 2}])}}, f"{AT}[0]/similarity' must be a number from -1"),
        ({"vae": {"256": run(a=[{"similarity": 1.0}])}}, f"{AT}[0]/ratio' must be a number"),
    ],
)
def test_broken_files(write: Write, facts: Any, complaint: str) -> None:
    path = write("ic13.json", facts)
    done = command(path)
    assert done.exit_code == 1, done.output
    assert complaint in done.output
    assert str(path) in done.output or "has bins for" in done.output
    assert len(done.output) < 1000
    assert "\x1b" not in done.output


def test_files_that_are_no_text(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json").write_bytes(b"\x80\x04\x95\xff\xfe")
    with pytest.raises(ResultError, match=r"a\.json is not a readable"):
        read([tmp_path / "a.json"])
    with pytest.raises(ResultError, match=r"b\.json is not a readable"):
        read([tmp_path / "b.json"])
    monkeypatch.setattr(tokbench_import, "MAX_FILE", 100)
    with pytest.raises(ResultError, match="over the limit of 100 bytes"):
        read([write("c.json", {"vae": {"256": IC13}})])
    assert command().exit_code == 2


def test_one_set_twice_is_refused(write: Write) -> None:
    """It would count each word twice. The set may occur once per method."""
    first, again = write("a/tt.json", {"vae": {"256": TT}}), write("b/tt.json", {"vae": {"256": TT}})
    with pytest.raises(ResultError, match=r"b/tt\.json: 'vae' at 256 on 'tt' is already in .*a/tt\.json"):
        read([first, again])
    assert len(read([first, write("c/tt.json", {"other": {"256": TT}})])) == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=4), part, max_size=3),
    max_leaves=6,
)
KEYS = ("details", "a.jpg", "results", "gt", "pred", "ratio", "accuracy", "ned", "similarity", "vae", "256")


@pytest.mark.slow
@settings(
    max_examples=100, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(where=st.sampled_from(KEYS), other=JSON)
def test_any_part_may_be_anything(write: Write, where: str, other: Any) -> None:
    """A file with an arbitrary value in one place is either read or refused with a ResultError."""

    def changed(value: Any) -> Any:
        if isinstance(value, list):
            return [changed(part) for part in value]
        if isinstance(value, dict):
            return {key: other if key == where else changed(part) for key, part in value.items()}
        return value

    path, refused = write("any.json", changed({"vae": {"256": run(a=[word("ab", "ax", 0.02)])}})), ""
    try:
        found = read([path])
        markdown(found, rows(found)).encode()
        assert all(len(one.ratio) == len(one.images) for one in found)
    except ResultError as error:
        refused = str(error)
    assert refused.isprintable()
