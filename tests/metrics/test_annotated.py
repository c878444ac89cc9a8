"""Words and faces through the whole pass: bins, ceiling, ratios, padding, the cache, the suite, the picture."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import run_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tokbench.data.annotations import Annotations, Face, Word
from tokbench.data.dataset import Dataset, open_dataset
from tokbench.data.letterbox import letterbox_box, pad, undo_letterbox
from tokbench.data.sources.annotated import AnnotatedSource
from tokbench.data.sources.folder import Folder
from tokbench.data.stream import AnnotatedImage
from tokbench.errors import MissingField, NotApplicable, ResultError
from tokbench.metrics.batch import Batch
from tokbench.metrics.image_format import scored
from tokbench.metrics.registry import MetricContext, create_metric
from tokbench.metrics.text import cut
from tokbench.metrics.text_scores import errors, exact, similarity
from tokbench.protocol.protocol import TOKBENCH, load_protocol
from tokbench.report.worst_crops import cases
from tokbench.results.result import Result, load
from tokbench.tokenizers.registry import load_adapter

PEER = load_protocol("tokbench-peer")


class Fixed:
    """Returns the given texts, crop by crop in the order of the calls."""

    key = name = "fixed"

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    def read(self, crops: list[np.ndarray]) -> list[str]:
        return [self.texts.pop(0) for _ in crops]

    def describe(self) -> dict[str, str]:
        return {"reader": self.name}


def one_image(words: list[tuple[str, float]]) -> Batch:
    known = Annotations(tuple(Word(text, (0, 0, 40, 20), ratio) for text, ratio in words))
    images = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    marked = [AnnotatedImage((images[0] * 255).round().byte().permute(1, 2, 0).numpy(), known)]
    return Batch(torch.tensor([0]), images, images, marked=marked)


def test_scores_by_the_published_formulas(networks) -> None:
    """Five words, one of which the reader gets wrong in the original; numbers by hand."""
    truths = [("Abc", 0.021), ("de", 0.025), ("fghij", 0.03), ("k", 0.05), ("wrong", 0.05)]
    originals = ["Abc", "de", "fghij", "k", "wr0ng"]
    ceiling, image = ["Abc", "de", "fghix", "k"], ["abc", "", "fgh", "k"]
    networks._readers["rapidocr"] = Fixed(*originals, *ceiling, *image)
    metric = create_metric("text", MetricContext(networks, load_adapter("identity").model))
    metric.update(one_image(truths))
    found = metric.compute()
    assert (found["words"], found["words_filtered"]) == (4, 1)
    assert found["t_acc.small"] == 0  # Abc and abc are two things
    assert (found["t_acc.medium"], found["t_acc.large"]) == (0, 1)  # 0.03 belongs to the medium bin
    assert found["t_acc"] == pytest.approx(1 / 3)
    assert found["t_ned.small"] == pytest.approx((2 / 3 + 0) / 2)
    assert found["t_ned.medium"] == pytest.approx(3 / 5)
    assert found["t_ned"] == pytest.approx((1 / 3 + 3 / 5 + 1) / 3)
    assert found["t_acc_ceiling"] == pytest.approx((1 + 0 + 1) / 3)
    assert found["t_acc_ratio"] == pytest.approx(1 / 2)
    assert math.isnan(found["t_acc_ratio.medium"])  # nothing could be read in what was only scaled
    assert found["t_ned_ratio.medium"] == pytest.approx((3 / 5) / (4 / 5))
    assert found["t_acc_all"] == 1 / 4
    assert found["cer_all"] == pytest.approx((1 + 2 + 2 + 0) / (3 + 2 + 5 + 1))
    assert found["t_acc_curve.12 to 16"] == 1  # 0.05 x 256 = 12.8 pixels a character
    assert "t_acc_curve.24 to 40" not in found
    intervals = metric.intervals(0)
    assert {name for name in found if name not in intervals} == {
        "t_acc_ratio",
        "t_ned_ratio",
        "words",
        "words_filtered",
    }
    assert intervals["t_acc.small"].n == 2


def test_the_readings_kept_give_the_scores_again(networks, photos, damaged, mark) -> None:
    metric = create_metric("text", MetricContext(networks, load_adapter("identity").model))
    metric.update(Batch(torch.arange(6), photos, damaged, marked=mark(photos)))
    words = [word for _, line in metric.readings()["words"] for word in line if word["image"] is not None]
    pairs = [(word["truth"], word["image"]) for word in words]
    found = metric.compute()
    assert found["words"] == len(pairs) and found["words"] + found["words_filtered"] == 18
    assert found["t_acc_all"] == pytest.approx(np.mean([exact(*pair) for pair in pairs]))
    assert found["t_ned_all"] == pytest.approx(np.mean([similarity(*pair) for pair in pairs]))
    assert found["cer_all"] == pytest.approx(sum(errors(*pair) for pair in pairs) / sum(len(a) for a, _ in pairs))


def test_an_exact_image_has_its_ceiling(networks, photos, mark) -> None:
    for name, perfect in (("text", ("t_acc", "t_ned")), ("faces", ("f_sim", "f_detected", "f_rank1"))):
        metric = create_metric(name, MetricContext(networks, load_adapter("identity").model))
        metric.update(Batch(torch.arange(6), photos, photos, marked=mark(photos)))
        found = metric.compute()
        for number in perfect:
            assert found[number] == pytest.approx(1)
            assert found[f"{number}_ratio"] == pytest.approx(1)
    assert found["f_distance"] == 0


def test_faces_that_change_places_are_no_longer_themselves(networks, photos, mark) -> None:
    """Reconstructions that are the other images: the nearest original is another face, unless of the same man."""
    other = photos.roll(1, 0)
    metric = create_metric("faces", MetricContext(networks, load_adapter("identity").model))
    metric.update(Batch(torch.arange(6), photos, other, marked=mark(photos)))
    assert metric.compute()["f_rank1_all"] == 0
    assert metric.compute()["f_sim_all"] < 1
    annotations = [
        AnnotatedImage(
            one.pixels, Annotations(faces=tuple(Face(f.box, f.points, f.ratio, "the same") for f in one.known.faces))
        )
        for one in mark(photos)
    ]
    same = create_metric("faces", MetricContext(networks, load_adapter("identity").model))
    same.update(Batch(torch.arange(6), photos, other, marked=annotations))
    assert same.compute()["f_rank1_all"] == 1


def test_a_face_that_is_lost_counts_and_one_that_never_was_found_does_not(networks, photos, mark) -> None:
    black = torch.zeros_like(photos)
    metric = create_metric("faces", MetricContext(networks, load_adapter("identity").model))
    metric.update(Batch(torch.arange(6), photos, black, marked=mark(photos)))
    assert metric.compute()["f_detected_all"] == 0
    never = create_metric("faces", MetricContext(networks, load_adapter("identity").model))
    never.update(Batch(torch.arange(6), black, black, marked=mark(black)))
    assert math.isnan(never.compute()["f_detected_all"])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from([16, 64, 256]))
def test_padding_holds_the_whole_image_and_gives_it_back(width: int, height: int, side: int) -> None:
    left, top, across, down = letterbox_box(width, height, side)
    assert max(across, down) == side
    assert 0 <= left <= side - across and 0 <= top <= side - down
    assert abs(left - (side - across - left)) <= 1 and abs(top - (side - down - top)) <= 1
    grey = Image.new("RGB", (width, height), (90, 120, 150))
    square = pad(grey, side)
    assert square.shape == (side, side, 3)
    assert (square[top : top + down, left : left + across] == (90, 120, 150)).all()
    assert square.sum() == across * down * 360  # black around it
    assert (undo_letterbox(square, width, height) == np.asarray(grey)).all()


def test_padding_an_image_that_fits_changes_nothing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    assert (undo_letterbox(pad(Image.fromarray(pixels), 64), 64, 48) == pixels).all()


def test_stored_as_its_authors_store_it() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    faithful = load_protocol("tokbench-peer-jpeg")
    assert (scored(pixels, 64, 64, PEER) == pixels).all()
    assert (scored(pixels, 64, 64, faithful) != pixels).any()
    with pytest.raises(NotApplicable, match="words and faces need whole images"):
        scored(pixels, 128, 64, TOKBENCH)


def test_boxes_are_cut_outwards_and_inside() -> None:
    pixels = np.arange(100).reshape(10, 10)
    assert cut(pixels, (1.5, 2.5, 3.2, 4.0)).shape == (2, 3)
    assert cut(pixels, (-3, -3, 2, 2)).shape == (2, 2)
    assert cut(pixels, (8, 8, 99, 99)).shape == (2, 2)


@pytest.fixture
def annotated(tmp_path: Path, photos, mark) -> Dataset:
    """Six photos in files of 300 x 200, with words and faces."""
    folder = tmp_path / "images"
    folder.mkdir()
    known = {}
    for i, photo in enumerate((photos * 255).round().byte().permute(0, 2, 3, 1).numpy()):
        Image.fromarray(photo).resize((300, 200)).save(folder / f"{i}.png")
        known[f"{i}.png"] = mark(photos[:1, :, :200, :200])[0].known
    return Dataset("annotated", AnnotatedSource(Folder(folder), known), PEER, 256)


def measured(dataset: Dataset, networks, cache: Path | None, adapter: str = "jpeg.q10") -> Result:
    (result,) = run_eval([load_adapter(adapter)], dataset, ["text", "faces", "psnr"], networks=networks, cache=cache)
    assert result.error is None, result.error
    assert not result.skipped
    return result


@pytest.mark.slow
def test_originals_and_ceiling_are_read_once(annotated: Dataset, networks, tmp_path: Path) -> None:
    reader, seen = networks.reader("rapidocr"), []
    read = type(reader).read
    reader.read = lambda crops: seen.append(len(crops)) or read(reader, crops)
    first = measured(annotated, networks, tmp_path / "cache")
    both = sum(seen)
    first.checkpoint.discard()
    seen.clear()
    again = measured(annotated, networks, tmp_path / "cache", "jpeg.q90")
    again.checkpoint.discard()
    assert 0 < sum(seen) < both / 2
    assert first.metrics["t_acc_ceiling_all"] == again.metrics["t_acc_ceiling_all"]
    alone = measured(annotated, networks, None)
    assert alone.metrics == first.metrics
    assert alone.readings == first.readings


@pytest.mark.slow
def test_other_annotations_are_other_data(annotated: Dataset, networks, tmp_path: Path) -> None:
    first = measured(annotated, networks, tmp_path / "cache")
    first.checkpoint.discard()
    source = annotated.source
    assert isinstance(source, AnnotatedSource)
    known = {name: source.annotations(i) for i, name in enumerate(source.names)}
    known["0.png"] = Annotations(known["0.png"].words[:1], known["0.png"].faces)
    changed = Dataset("annotated", AnnotatedSource(source._source, known), PEER, 256)
    other = measured(changed, networks, tmp_path / "cache")
    assert other.provenance["data"]["sha256"] != first.provenance["data"]["sha256"]
    assert sum(entry["value"] for name, entry in other.metrics.items() if name.startswith("words")) == 16


def test_readings_lie_beside_the_result(annotated: Dataset, networks, tmp_path: Path) -> None:
    result = measured(annotated, networks, None)
    path, _ = result.save(tmp_path)
    kept = load(path)
    assert kept.readings == result.readings
    assert "vector" not in str(kept.readings["faces"])
    with np.load(path.with_suffix(".npz")) as arrays:
        held = dict(arrays)
    for broken in (b"{", b'{"a": 1}', b"[[1, []]]", b"[" * 100000):
        held["readings.words"] = np.frombuffer(broken, dtype=np.uint8)
        np.savez(path.with_suffix(".npz"), **held)
        with pytest.raises(ResultError, match=r"readings\.words"):
            load(path)


def test_a_dataset_that_tells_nothing_is_named(networks) -> None:
    metric = create_metric("text", MetricContext(networks, load_adapter("identity").model))
    with pytest.raises(MissingField, match="needs a dataset with annotated words or faces"):
        metric.update(Batch(torch.tensor([0]), torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)))


def test_the_worst_come_first(annotated: Dataset, networks) -> None:
    result = measured(annotated, networks, None)
    found = cases(result)
    assert [case.score for case in found] == sorted(case.score for case in found)
    assert all(case.lines[0].startswith("F-Sim") for case in cases(result, "faces"))
    with pytest.raises(ResultError, match="the result contains words, faces"):
        cases(result, "words_easyocr")


@pytest.mark.parametrize("name", ["text", "faces"])
def test_embedded_datasets_are_annotated(name: str) -> None:
    dataset = open_dataset(name, PEER, 256)
    assert isinstance(dataset.source, AnnotatedSource)
    known = [dataset.source.annotations(i) for i in range(len(dataset))]
    assert all(one.words if name == "text" else one.faces for one in known)


@pytest.mark.slow
def test_a_suite_is_data_size_protocol_and_metrics(cli, tmp_path: Path) -> None:
    """With the readers that are here, on one image of words and one of faces; then a picture of the worst."""
    pytest.importorskip("rapidocr")
    pytest.importorskip("dlib")
    command = ["eval", "jpeg.q10", "--suite", "tokbench-256", "--faithful", "--limit", "1", "--out", tmp_path]
    done = cli(*command, "--data", "text,faces", "--json")
    assert done.exit_code == 0, done.output
    text, faces = json.loads(done.stdout)
    for facts in (text, faces):
        assert facts["provenance"]["protocol"]["name"] == "tokbench-peer-jpeg"
        assert facts["provenance"]["data"]["width"] == 256
    assert text["metrics"]["t_acc_ceiling_all"]["value"] > text["metrics"]["t_acc_all"]["value"]
    assert text["provenance"]["metrics"]["t_acc"]["reader"] == "rapidocr"
    assert 0 < faces["metrics"]["f_sim_all"]["value"] < faces["metrics"]["f_sim_ceiling_all"]["value"]
    assert "words" in faces["skipped"]["text"]
    (path,) = tmp_path.glob("jpeg.q10/text*.json")
    drawn = cli("show", path, "--worst", "3", "--picture", tmp_path / "worst.png")
    assert drawn.exit_code == 0, drawn.output
    with Image.open(tmp_path / "worst.png") as picture:
        assert picture.height > 3 * 72


def test_a_suite_cannot_be_half_another(cli, tmp_path: Path) -> None:
    for more in (
        ["--suite", "tokbench-256", "--size", "128"],
        ["--faithful"],
        ["--suite", "photos-512", "--faithful", "--data", "samples"],
    ):
        done = cli("eval", "identity", *more, "--out", tmp_path)
        assert done.exit_code == 2
        assert "--suite" in done.output
