"""The OCR networks: rendered words are read exactly, in order, and none depends on the words beside it."""

from __future__ import annotations

import importlib
import logging
import socket
import sys
import types
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from tokbench.errors import MissingWeights, UsageError
from tokbench.extractors import parseq
from tokbench.extractors.recognizer import MAX_ASPECT, TextRecognizer, find_weights
from tokbench.io.hashing import sha256_of
from tokbench.weights.registry import WeightFile

WORDS = ("tokens", "Visual", "1984", "of", "EXIT", "reconstruction", "Paris", "photograph", "MIT", "benchmark")
CLASSES = {"rapidocr": ("rapidocr", "RapidOCR"), "easyocr": ("easyocr", "EasyOCR"), "parseq": ("parseq", "PARSeq")}


def rendered(word: str, size: int = 32) -> np.ndarray:
    """A crop (h, w, 3) of the word, dark on light, with a margin of a quarter of its size."""
    font, margin = ImageFont.load_default(size), size // 4
    left, top, right, bottom = font.getbbox(word)
    image = Image.new("RGB", (int(right - left) + 2 * margin, int(bottom - top) + 2 * margin), (235, 232, 220))
    ImageDraw.Draw(image).text((margin - left, margin - top), word, (30, 34, 60), font)
    return np.asarray(image)


@pytest.fixture(scope="module", params=["rapidocr", "easyocr"])
def reader(request: pytest.FixtureRequest) -> TextRecognizer:
    pytest.importorskip(request.param, reason=f"needs {request.param}: pip install 'tokbench[text]'")
    module, kind = CLASSES[request.param]
    made = getattr(importlib.import_module(f"tokbench.extractors.{module}"), kind)()
    assert made.name == request.param
    return made


def test_rendered_words_are_read_exactly_and_in_order(reader: TextRecognizer) -> None:
    assert reader.read([rendered(word) for word in WORDS]) == list(WORDS)


@pytest.mark.slow
def test_no_reading_depends_on_the_other_crops(reader: TextRecognizer) -> None:
    # Hard to read, so that a text would change where anything leaks from crop to crop.
    small = [rendered(word, 20 + i)[::3, ::3] for i, word in enumerate(WORDS)]
    together = reader.read(small)
    assert [reader.read([crop])[0] for crop in small] == together
    assert reader.read([*small[::-1], rendered("extraordinary wide line")])[:-1] == together[::-1]


@pytest.mark.slow
def test_several_threads_read_the_same(reader: TextRecognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    crops, threads = [rendered(word)[::2, ::2] for word in WORDS], torch.get_num_threads()
    alone = reader.read(crops)
    monkeypatch.setattr(reader, "threads", 3)
    assert reader.read(crops) == alone and torch.get_num_threads() == threads


def test_an_empty_crop_says_nothing_and_moves_no_other(reader: TextRecognizer) -> None:
    nothing = np.zeros((0, 12, 3), np.uint8)
    assert reader.read([nothing, rendered("tokens"), nothing[:, :0], rendered("of")]) == ["", "tokens", "", "of"]
    assert reader.read([]) == []


def test_any_shape_is_read(reader: TextRecognizer) -> None:
    crops = [np.full(shape, 200, np.uint8) for shape in ((1, 1, 3), (1, 500, 3), (400, 2, 3), (3, 2, 3))]
    assert len(reader.read(crops)) == 4


def test_views_are_read_as_copies(reader: TextRecognizer) -> None:
    page = np.full((90, 300, 3), 235, np.uint8)
    crop = rendered("Visual")
    page[20 : 20 + crop.shape[0], 40 : 40 + crop.shape[1]] = crop
    page.setflags(write=False)
    assert reader.read([page[20 : 20 + crop.shape[0], 40 : 40 + crop.shape[1]]]) == ["Visual"]


def test_other_arrays_are_refused(reader: TextRecognizer) -> None:
    for wrong in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((8, 8, 4), np.uint8)):
        with pytest.raises(UsageError, match="uint8"):
            reader.read([wrong])


def test_a_result_names_reader_hash_and_library(reader: TextRecognizer) -> None:
    facts = reader.describe()
    assert facts["reader"] == reader.name and len(facts["sha256"]) == 64 and reader.name in facts["library"]
    assert all(value in reader.key for value in facts.values())


def test_making_and_reading_draw_no_random_number_and_write_no_log(
    reader: TextRecognizer, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    before, path = torch.get_rng_state(), list(sys.path)
    with caplog.at_level(logging.INFO):
        type(reader)().read([rendered("tokens")])  # type: ignore[call-arg]
    assert torch.equal(torch.get_rng_state(), before) and sys.path == path
    assert "".join(capfd.readouterr()) == "" and not caplog.records


def test_rapidocr_reads_a_word_as_its_library_reads_it_alone() -> None:
    pytest.importorskip("rapidocr")
    from rapidocr.ch_ppocr_rec import TextRecInput

    from tokbench.extractors.rapidocr import RapidOCR

    ours = RapidOCR()
    ours._recognizer.cfg.font_path = None  # of the pictures that its results can draw
    crops = [rendered(word, 24)[::2, ::2] for word in (*WORDS, "a long line of several words")]
    alone = [ours._recognizer(TextRecInput(img=[crop[..., ::-1]])).txts[0] for crop in crops]
    assert ours.read(crops) == alone


@pytest.mark.parametrize(("name", "package"), [("rapidocr", "rapidocr"), ("rapidocr", "onnxruntime")])
def test_a_missing_package_is_named_with_its_remedy(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _absent(name, package, "tokbench[text]", monkeypatch)


def test_missing_easyocr_and_doctr_are_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    _absent("easyocr", "easyocr", "tokbench[text]", monkeypatch)
    _absent("parseq", "doctr.models", "python-doctr", monkeypatch)


def _absent(name: str, package: str, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, kind = CLASSES[name]
    make = getattr(importlib.import_module(f"tokbench.extractors.{module}"), kind)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingWeights, match="pip install") as raised:
        make()
    assert (
        remedy in str(raised.value)
        and "not installed" in raised.value.public_reason
        and "/" not in raised.value.public_reason
    )


@pytest.mark.parametrize("name", ["rapidocr", "easyocr"])
def test_missing_weights_are_named_and_nothing_is_downloaded(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip(name)
    module = importlib.import_module(f"tokbench.extractors.{CLASSES[name][0]}")
    for variable in ("TOKBENCH_WEIGHTS", "TOKBENCH_CACHE", "TORCH_HOME", "EASYOCR_MODULE_PATH"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setattr(module, "SOURCE", replace(module.SOURCE, wheel=("no_such_wheel", module.SOURCE.file)))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("it asked for an address"))
    with pytest.raises(MissingWeights, match=module.SOURCE.file.replace(".", r"\.")):
        getattr(module, CLASSES[name][1])()


def test_a_librarys_own_folder_is_looked_in_and_its_file_checked(tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_bytes(b"weights")
    source = WeightFile("net.pt", sha256_of(tmp_path / "net.pt")[:8], "somewhere")
    assert find_weights("a reader", source, tmp_path).path == tmp_path / "net.pt"
    (tmp_path / "net.pt").write_bytes(b"damaged")
    with pytest.raises(MissingWeights, match=r"net\.pt"):
        find_weights("a reader", source, tmp_path)


class Echo(TextRecognizer):
    """Returns each crop's shape as its text, and records its batches."""

    name, sha256, library, batch = "echo", "0" * 64, "echo 1", 3

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []

    def width(self, height: int, width: int) -> int:
        return 10 * min(-(-width // height), MAX_ASPECT)

    def read_batch(self, crops: Sequence[np.ndarray], width: int) -> list[str]:
        self.batches.append((width, len(crops)))
        return [f"{crop.shape[0]}x{crop.shape[1]}" for crop in crops]


def test_batches_are_sorted_by_width_and_hold_one_width() -> None:
    echo = Echo()
    shapes = [(10, 35), (10, 8), (10, 900), (20, 70), (0, 5), (7, 7), (10, 36), (5, 20)]
    texts = echo.read([np.zeros((*shape, 3), np.uint8) for shape in shapes])
    assert texts == ["10x35", "10x8", "10x900", "20x70", "", "7x7", "10x36", "5x20"]
    assert echo.batches == [(10, 2), (40, 3), (40, 1), (10 * MAX_ASPECT, 1)]
    echo.threads = 3
    assert echo.read([np.zeros((*shape, 3), np.uint8) for shape in shapes]) == texts


def test_parseq_loads_verified_weights_and_reads_whole_crops(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """docTR's part is played by a stand-in with its interface."""
    calls: list[object] = []

    class Model(torch.nn.Module):
        def from_pretrained(self, path: str) -> None:
            calls.append(path)

    class Predictor:
        split_wide_crops = True

        def __call__(self, crops: list[np.ndarray]) -> list[tuple[str, float]]:
            calls.append((self.split_wide_crops, len(crops)))
            return [(f"{crop.shape[1]}", 0.9) for crop in crops]

    def parseq_model(pretrained: bool) -> Model:
        assert not pretrained  # it would be downloaded
        return Model()

    models = types.ModuleType("doctr.models")
    models.parseq = parseq_model  # type: ignore[attr-defined]
    models.recognition_predictor = lambda model, batch_size: Predictor()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "doctr", types.ModuleType("doctr"))
    monkeypatch.setitem(sys.modules, "doctr.models", models)
    monkeypatch.setattr(parseq, "version", lambda package: "1.0")
    monkeypatch.setenv("DOCTR_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("TOKBENCH_WEIGHTS", raising=False)
    with pytest.raises(MissingWeights, match=r"parseq-56125471\.pt"):
        parseq.PARSeq()
    file = tmp_path / "models" / parseq.SOURCE.file
    file.parent.mkdir()
    file.write_bytes(b"weights")
    monkeypatch.setattr(parseq, "SOURCE", replace(parseq.SOURCE, sha256=sha256_of(file)))
    reader = parseq.PARSeq()
    assert reader.read([np.zeros((9, width, 3), np.uint8) for width in (50, 7, 300)]) == ["50", "7", "300"]
    assert calls == [str(file), (False, 3)] and reader.sha256 == sha256_of(file)
