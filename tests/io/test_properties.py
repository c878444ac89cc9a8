"""Properties for all inputs: readers give an image or raise UnreadableImage, forms agree, saved files are restored."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from image_files import encode, pack, write_parquet, zip_bytes
from PIL import Image
from skimage import data

from tokbench.cli import listing
from tokbench.data.decode import open_rgb, size_of
from tokbench.data.sources.open import open_source
from tokbench.errors import DataError, ResultError, UnreadableImage
from tokbench.metrics.fid_statistics import FidStatistics, load_statistics
from tokbench.results import leaderboard, markdown
from tokbench.results.result import Result, load
from tokbench.stats.split_half import Replicates

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of mutated metadata

T = TypeVar("T")

FEW = settings(
    max_examples=60, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip


PHOTO = Image.fromarray(data.astronaut()[100:132, 200:224])
SEEDS = {kind: encode(PHOTO, kind) for kind in ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "PPM")}
SEEDS["progressive"] = encode(PHOTO, "JPEG", progressive=True)
SEEDS["grey16"] = encode(Image.fromarray(np.arange(768, dtype=np.uint16).reshape(32, 24) * 80), "PNG")


@st.composite
def mutated(draw: st.DrawFn, seeds: dict[str, bytes]) -> bytes:
    """A valid file with some bytes changed, cut off, left out, or copied in from another."""
    made = bytearray(seeds[draw(st.sampled_from(sorted(seeds)))])
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(made) - 1)))
        how = draw(st.sampled_from(["flip", "set", "cut", "drop", "splice"]))
        if how == "flip" and made:
            made[place] ^= 1 << draw(st.integers(0, 7))
        elif how == "set":
            made[place : place + 4] = draw(st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"]))
        elif how == "cut":
            del made[place:]
        elif how == "drop":
            del made[place : place + draw(st.integers(1, 64))]
        else:
            other = seeds[draw(st.sampled_from(sorted(seeds)))]
            start = draw(st.integers(0, len(other)))
            made[place:place] = other[start : start + draw(st.integers(1, 256))]
    return bytes(made)


def attempt(call: Callable[[], T], refusal: type[Exception]) -> tuple[T | None, str]:
    """Return the value of a call, or the error that refused its input. Any other exception fails the test."""
    try:
        return call(), ""
    except refusal as error:
        return None, str(error)


def image_or_refused(given_bytes: bytes) -> None:
    size, unsized = attempt(lambda: size_of(given_bytes, "x"), UnreadableImage)
    picture, refused = attempt(lambda: open_rgb(given_bytes, "x"), UnreadableImage)
    for complaint in filter(None, (unsized, refused)):
        assert re.fullmatch("x: .+; .+", complaint, re.DOTALL)  # the name, the fault, the remedy
    if picture is not None:
        assert picture.mode == "RGB"
        assert picture.size == size


@settings(FEW, max_examples=500)
@given(st.binary(max_size=300))
def test_any_bytes_are_an_image_or_refused(given_bytes: bytes) -> None:
    image_or_refused(given_bytes)


@pytest.mark.slow
@settings(FEW, max_examples=2000)
@given(mutated(SEEDS))
def test_any_mutation_of_an_image_is_an_image_or_refused(given_bytes: bytes) -> None:
    image_or_refused(given_bytes)


SEGMENT = st.text("abzAZ09_ -é漢", min_size=1, max_size=8).map(lambda text: text.strip() or "x")
NAMES = st.lists(
    st.tuples(st.lists(SEGMENT, max_size=2), SEGMENT, st.sampled_from([".png", ".PNG"])).map(
        lambda parts: "/".join([*parts[0], parts[1] + parts[2]])
    ),
    min_size=1, max_size=6, unique_by=lambda name: name.casefold(),
)  # fmt: skip


@settings(FEW, max_examples=25)
@given(NAMES, st.randoms(use_true_random=False))
def test_all_forms_give_the_same_images_in_one_order(tmp_path_factory: pytest.TempPathFactory, names, random) -> None:
    """Whatever order they were written in."""
    place = tmp_path_factory.mktemp("forms")
    files = {name: encode(Image.new("RGB", (5, 4), (i, 2 * i, 7)), "PNG") for i, name in enumerate(names)}

    for form in ("folder", "a.zip", "a.tar"):
        pack(place / form, {name: files[name] for name in random.sample(names, len(names))})
    rows = [{"bytes": files[name], "path": name} for name in sorted(names)]
    write_parquet(place / "a.parquet", rows, row_group_size=2)
    for form in ("folder", "a.zip", "a.tar", "a.parquet"):
        source = open_source(place / form)
        assert source.names == sorted(names), form
        for position, name in enumerate(source.names):
            assert np.array_equal(np.asarray(source.open(position)), np.asarray(open_rgb(files[name], name)))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("packed")
    files = {f"{kind}.png": SEEDS[kind] for kind in ("PNG", "GIF", "PPM")}
    (place / "a.zip").write_bytes(zip_bytes(files, zipfile.ZIP_STORED))
    pack(place / "a.tar", files)
    return place


@pytest.mark.slow
@pytest.mark.parametrize("form", ["a.zip", "a.tar"])
def test_any_mutation_of_an_archive_is_read_or_refused(packed: Path, tmp_path: Path, form: str) -> None:
    seeds = {"whole": (packed / form).read_bytes()}

    @settings(FEW, max_examples=500)
    @given(mutated(seeds))
    def holds(given_bytes: bytes) -> None:
        (tmp_path / form).write_bytes(given_bytes)
        source, refused = attempt(lambda: open_source(tmp_path / form), DataError)
        if source is None:
            assert form in refused
            return
        for position, name in enumerate(source.names):
            _, refused = attempt(lambda p=position: source.open(p), UnreadableImage)
            assert refused.startswith(name) or not refused

    holds()


NUMBER = st.one_of(st.none(), st.floats(-1e300, 1e300, allow_nan=False))
INTERVAL = st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)).map(lambda ends: {"low": min(ends), "high": max(ends)})
METRICS = st.dictionaries(
    st.sampled_from(["psnr", "ssim", "rfid", "codebook_usage.semantic", "new"]),
    st.tuples(
        NUMBER, st.one_of(st.just({}), st.just({"low": None, "high": None}), INTERVAL), st.integers(0, 10**9)
    ).map(lambda parts: {"value": parts[0], **parts[1], "n": parts[2]}),
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
PLAIN = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}", fullmatch=True)


@pytest.mark.slow
@settings(FEW, max_examples=80)
@given(st.data())
def test_results_come_back_as_they_were_saved(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    metrics, count = data.draw(METRICS), data.draw(st.integers(1, 5))
    column = hnp.arrays(np.float64, count, elements=st.floats(-1e300, 1e300) | st.just(np.nan))
    per_image = {"index": np.arange(count) * 3, "name": np.array([f"ü{i}.png" for i in range(count)])}
    per_image |= {number: data.draw(column) for number in metrics}
    halves = data.draw(hnp.arrays(np.float64, (2, 20), elements=st.floats(-1e9, 1e9)))
    replicates = {"rfid": Replicates(halves[0], halves[1])} if data.draw(st.booleans()) else {}
    provenance = {
        "adapter": {"kind": data.draw(TEXT), "note": data.draw(st.dictionaries(TEXT, TEXT | st.integers(-9, 9)))},
        "data": {
            "sha256": "d" * 64, "width": data.draw(st.integers(1, 9999)), "height": data.draw(st.integers(1, 9999)),
            "own_size": data.draw(st.none() | st.integers(1, 9)), "limit": data.draw(st.none() | st.integers(1, 9)),
        },
        "protocol": {"name": data.draw(PLAIN), "sha256": "p" * 64},
        "metrics": {number: {"network": data.draw(TEXT)} for number in metrics},
        "seed": data.draw(st.integers(0, 2**32)), "precision": "float32", "device": "cpu",
    }  # fmt: skip
    made = Result(
        data.draw(PLAIN), data.draw(PLAIN), "reconstruct", data.draw(st.integers(0, 10**7)), metrics,
        data.draw(st.dictionaries(TEXT, TEXT)),
        data.draw(st.lists(st.fixed_dictionaries({"name": TEXT, "reason": TEXT}), max_size=3)),
        provenance, per_image=per_image, replicates=replicates,
    )  # fmt: skip
    path, _ = made.save(tmp_path_factory.mktemp("results"))
    again = load(path)
    assert again.to_dict() == made.to_dict()
    assert set(again.per_image) == set(per_image)
    for name, values in per_image.items():
        np.testing.assert_array_equal(again.per_image[name], values)
    for name, drawn in replicates.items():
        np.testing.assert_array_equal(again.replicates[name].as_array(), drawn.as_array())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@settings(FEW, max_examples=500)
@given(st.data())
def test_a_result_with_any_value_in_any_place_loads_or_is_refused(
    root: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """One value of a committed result, at any depth, becomes any other JSON value."""
    facts = json.loads((root / "results" / "toy.p8" / "samples-reconstruct.json").read_text(encoding="utf-8"))
    place = facts
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or not place[key] or data.draw(st.integers(0, 3)) == 0:
            break
        place = place[key]
    place[key] = data.draw(JSON)
    path = tmp_path_factory.mktemp("r") / "r.json"
    path.write_text(json.dumps(facts), encoding="utf-8")
    made, refused = attempt(lambda: load(path), ResultError)
    if made is None:
        assert "r.json" in refused
        return
    assert ".." not in made.path.parts
    assert len(made.path.parts) == 2
    assert (
        attempt(lambda: (listing.show(made), markdown.markdown([made]), leaderboard.frame([made])), ResultError)[1]
        == ""
    )


@settings(FEW, max_examples=40)
@given(st.integers(1, 6), st.data())
def test_statistics_come_back_as_they_were_saved(
    tmp_path_factory: pytest.TempPathFactory, size: int, data: st.DataObject
) -> None:
    rows = data.draw(hnp.arrays(np.float64, (8, size), elements=st.floats(-1e6, 1e6)))
    layers = {str(size): (rows.mean(0), np.cov(rows, rowvar=False).reshape(size, size))}
    if data.draw(st.booleans()):
        layers["sfid"] = (np.zeros(2), np.eye(2))
    text = st.none() | TEXT.filter(lambda t: not t.endswith("\0"))
    made = FidStatistics(
        layers, *(data.draw(text) for _ in range(4)), count=data.draw(st.none() | st.integers(0, 10**9))
    )
    path = tmp_path_factory.mktemp("s") / "s.npz"
    made.save(path)
    again = load_statistics(path)
    assert again.to_dict() == made.to_dict()
    for layer, moments in layers.items():
        for ours, theirs in zip(moments, again.layers[layer], strict=True):
            np.testing.assert_array_equal(ours, theirs)


@settings(FEW, max_examples=500)
@given(st.data())
def test_any_mutation_of_a_statistics_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, mu=np.arange(3.0), sigma=np.eye(3), tokbench=np.array('{"network": "net", "layers": ["3"]}'))
    path = tmp_path_factory.mktemp("s") / "s.npz"
    path.write_bytes(data.draw(mutated({"whole": buffer.getvalue()})))
    made, refused = attempt(lambda: load_statistics(path), ResultError)
    assert "s.npz" in refused or made is not None
    assert made is None or all(np.isfinite(mean).all() for mean, _ in made.layers.values())
