"""One odd image under every protocol: it is listed as a bad image with its reason, and the others are measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from factories import run_eval
from image_files import encode, write_noise, write_parquet
from PIL import Image

from tokbench.analysis.audit import audit
from tokbench.data import dataset as dataset_module
from tokbench.data import preprocess as prepare_module
from tokbench.data.dataset import open_dataset
from tokbench.data.preprocess import refuse_unstorable
from tokbench.errors import DataError, UsageError
from tokbench.evaluation.config import Context, EvalConfig
from tokbench.evaluation.reference_statistics import measure
from tokbench.metrics.image_format import scored
from tokbench.protocol.protocol import TOKBENCH, load_protocol, protocols
from tokbench.tokenizers.registry import load_adapter

SIDE = 32
ODD = {"one row": (3_000, 1), "one column": (1, 3_000), "one pixel": (1, 1), "long": (90_000, 1)}
"""Width and height. The last one would be 2,880,000 x 32 before its crop, over the limit."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six squares of noise that have the size already."""
    return write_noise(tmp_path / "images", 6, SIDE, digits=1)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", protocols())
def test_one_odd_image_ends_no_run(folder: Path, name: str, odd: str) -> None:
    """Under `crop = none` it ended the run with a UsageError, at the image's place in the pass."""
    for place in ("0 first", "9 last"):
        Image.new("RGB", ODD[odd], (9, 99, 200)).save(folder / f"{place}.png")
    dataset = open_dataset(str(folder), load_protocol(name), SIDE)
    read = [name for batch in dataset.batches(4) for name in batch.names]
    assert {f"{i}.png" for i in range(6)} <= set(read)
    assert set(read) | {name for name, _ in dataset.unreadable} == set(dataset.names)
    for bad, reason in dataset.unreadable:
        assert bad in ("0 first.png", "9 last.png") and reason.startswith(f"{bad}: ") and "; " in reason
    if dataset.protocol.crop == "none":
        assert "does not resize images" in dataset.unreadable[0][1]


@pytest.mark.parametrize("name", protocols())
def test_an_odd_image_and_all_numbers_of_a_run(folder: Path, name: str, networks) -> None:
    """Through metrics, storage and originals, too: what is read is measured, and the result lists what is not."""
    for number, size in enumerate(ODD.values()):
        Image.new("RGB", size, (9, 99, 200)).save(folder / f"odd{number}.png")
    protocol = load_protocol(name)
    dataset = open_dataset(str(folder), protocol, SIDE)
    (result,) = run_eval([load_adapter("jpeg.q50")], dataset, ["psnr", "rfid_64"], networks=networks)
    assert result.error is None, result.error
    assert result.num_images == len(dataset) - len(dataset.unreadable) >= 6
    assert "psnr" in result.metrics
    assert [bad["name"] for bad in result.bad_images] == [name for name, _ in dataset.unreadable]


class _Broken:
    """Stands for a library that fails on the images of one size."""

    def __init__(self, error: BaseException, real: object) -> None:
        self.error, self.real = error, real

    def __call__(self, image: Image.Image, *args: object) -> object:
        if image.size == (SIDE + 1, SIDE):
            raise self.error
        return self.real(image, *args)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "not enough memory to preprocess it; scale it down"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "can't allocate memory"),
        (ValueError("height and width must be > 0"), r"ValueError: height and width must be > 0\); remove it"),
        (OverflowError("signed integer is greater than maximum"), "OverflowError"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError"),
    ],
)
def test_whatever_a_preparation_raises_is_a_bad_image(
    folder: Path, error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (SIDE + 1, SIDE)).save(folder / "3b.png")
    monkeypatch.setattr(dataset_module, "prepare", _Broken(error, prepare_module.prepare))
    dataset = open_dataset(str(folder), TOKBENCH, SIDE)
    assert sum(len(batch.names) for batch in dataset.batches(4)) == 6
    ((name, message),) = dataset.unreadable
    assert name == "3b.png"
    with pytest.raises(DataError, match=rf"^3b.png: .*{reason}"):
        raise DataError(message)


def test_what_opencv_raises_is_a_bad_image(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2 = pytest.importorskip("cv2")
    real = cv2.resize

    def resize(pixels: np.ndarray, size: tuple[int, int], **options: object) -> np.ndarray:
        return real(pixels, (0, 0) if pixels.shape[0] == 50 else size, **options)

    Image.new("RGB", (50, 50)).save(folder / "3b.png")
    Image.new("RGB", (60, 40)).save(folder / "3c.png")
    monkeypatch.setattr(cv2, "resize", resize)
    protocol = TOKBENCH.with_changes("mine", library="opencv", antialias=False)
    dataset = open_dataset(str(folder), protocol, SIDE)
    assert sum(len(batch.names) for batch in dataset.batches(4)) == 7
    assert [name for name, _ in dataset.unreadable] == ["3b.png"]
    assert "protocol mine cannot preprocess it (error: OpenCV" in dataset.unreadable[0][1]


def test_an_absent_library_is_reported_before_the_pass(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error concerns the whole run and is no bad image, even if some images need no resizing."""
    monkeypatch.setitem(sys.modules, "cv2", None)
    protocol = TOKBENCH.with_changes("mine", library="opencv", antialias=False)
    with pytest.raises(UsageError, match=r"protocol mine resizes with OpenCV; install it with"):
        open_dataset(str(folder), protocol, SIDE)
    open_dataset(str(folder), protocol)  # where nothing is resized, nothing is missing


def test_where_no_image_is_left_the_first_reason_is_reported(folder: Path, tmp_path: Path, networks) -> None:
    none = load_protocol("pytorch-fid")
    with pytest.raises(UsageError, match=r"does not resize images, and this one is 32x32, not 64x64"):
        open_dataset(str(folder), none, 64)  # before the pass, from headers
    only = tmp_path / "only"
    only.mkdir()
    Image.new("RGB", ODD["long"]).save(only / "0.png")
    dataset = open_dataset(str(only), TOKBENCH, SIDE)
    with pytest.raises(DataError, match=r"no image could be read \(0.png: a 90000x1 image would become 2880000x32 "):
        run_eval([load_adapter("jpeg.q50")], dataset, ["psnr"], networks=networks)


def test_a_huge_image_whose_decoding_needs_too_much_memory_is_a_bad_image(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_bytes

    def refuse(self: Path) -> bytes:
        if self.name == "2.png":
            raise MemoryError
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    dataset = open_dataset(str(folder), TOKBENCH)
    assert sum(len(batch.names) for batch in dataset.batches(4)) == 5
    assert dataset.unreadable == [("2.png", "2.png: there is not enough memory to preprocess it; scale it down")]


def test_images_that_no_jpeg_holds_are_refused_before_they_are_stored() -> None:
    """The limit is libjpeg's own: one pixel more and Pillow raises in the middle of a metric."""
    peer = load_protocol("tokbench-peer-jpeg")
    square = np.zeros((SIDE, SIDE, 3), np.uint8)
    refuse_unstorable((65_500, 1), peer)
    assert scored(square, 65_500, 1, peer).shape == (1, 65_500, 3)
    with pytest.raises(DataError, match=r"stores it as JPEG, whose sides are at most 65,500 px, but it is 65501x1"):
        refuse_unstorable((65_501, 1), peer)
    with pytest.raises(OSError):
        scored(square, 65_501, 1, peer)
    refuse_unstorable((65_501, 1), load_protocol("tokbench-peer"))


@pytest.mark.slow
@pytest.mark.parametrize("odd", ["long", "one row", "one pixel"])
def test_an_audit_survives_one_odd_image(folder: Path, odd: str, networks) -> None:
    """Each row is measured on the images of the default row or gives the reason why not."""
    names = ("psnr", "rfid_64")
    Image.new("RGB", ODD[odd], (9, 99, 200)).save(folder / "3b.png")
    dataset = open_dataset(str(folder), TOKBENCH, SIDE)
    rows = audit(load_adapter("jpeg.q50"), dataset, EvalConfig(names), Context(networks=networks))
    kept = [name for name in dataset.names if name not in dict(dataset.unreadable)]
    assert dataset.unreadable if odd == "long" else not dataset.unreadable
    measured = 0
    for row in rows:
        if not row.numbers:
            assert all(row.missing.get(name) for name in names), row.choice.title
            continue
        measured += 1
        alone = open_dataset(str(folder), row.choice.protocol, SIDE)
        alone.source.reorder([alone.source.names.index(name) for name in kept])
        (result,) = run_eval([load_adapter("jpeg.q50")], alone, ["psnr"], networks=networks)
        assert result.num_images == len(kept)
        assert row.numbers["psnr"]["value"] == pytest.approx(result.metrics["psnr"]["value"], rel=1e-9)
    assert measured > 20
    for row in rows:
        if row.choice.protocol.crop == "none" and odd != "long":
            assert "some images cannot be prepared in this way: 3b.png: " in row.missing["psnr"]


def test_an_audits_command_lists_it_and_ends_with_1(folder: Path, cli) -> None:
    Image.new("RGB", ODD["long"]).save(folder / "3b.png")
    done = cli("audit", "jpeg.q50", "--data", folder, "--size", SIDE, "--metrics", "psnr")
    assert done.exit_code == 1, done.output
    assert "unreadable image 3b.png: 3b.png: a 90000x1 image would become" in done.stderr
    assert "6 images of 32x32 px" in done.stdout


@pytest.mark.parametrize("name", ["pytorch-fid", "tokbench"])
def test_statistics_of_one_odd_image_and_others(folder: Path, name: str, networks) -> None:
    Image.new("RGB", ODD["long"]).save(folder / "3b.png")
    dataset = open_dataset(str(folder), load_protocol(name), SIDE)
    reader = networks.get("inception-2015-12-05", dataset.protocol.features.input)
    made = measure(dataset, reader, ["64"], lambda what, done, total: None)
    assert made.count == 6
    assert [bad for bad, _ in dataset.unreadable] == ["3b.png"]


def test_eval_lists_it_and_the_others_are_measured(folder: Path, tmp_path: Path, cli) -> None:
    Image.new("RGB", (40, SIDE)).save(folder / "3b.png")
    out = ("--metrics", "psnr", "--out", tmp_path / "res")
    done = cli("eval", "jpeg.q50", "--data", folder, "--size", SIDE, "--protocol", "cosmos", *out, "--json")
    assert done.exit_code == 1
    (facts,) = json.loads(done.stdout)
    assert facts["num_images"] == 6
    ((bad),) = facts["bad_images"]
    assert bad["name"] == "3b.png"
    assert "does not resize images, and this one is 40x32, not 32x32; use images of that size" in bad["reason"]
    again = cli("eval", "jpeg.q50", "--data", folder, "--size", SIDE, "--protocol", "cosmos", *out, "--skip-bad")
    assert again.exit_code == 0


def test_marked_images_of_an_odd_shape_stop_nothing(folder: Path, networks) -> None:
    """Words and faces are read in whole images, which the JPEG protocol stores: one that no JPEG holds is left out."""
    from tokbench.data.annotations import Annotations, Word
    from tokbench.data.dataset import Dataset
    from tokbench.data.sources.annotated import AnnotatedSource
    from tokbench.data.sources.folder import Folder

    Image.new("RGB", ODD["long"]).save(folder / "3b.png")
    known = {name: Annotations((Word("word", (0, 0, 2, 2), 0.05),)) for name in Folder(folder).names}
    dataset = Dataset("x", AnnotatedSource(Folder(folder), known), load_protocol("tokbench-peer-jpeg"), SIDE)
    (result,) = run_eval([load_adapter("jpeg.q50")], dataset, ["text"], networks=networks)
    assert result.error is None, result.error
    assert [bad["name"] for bad in result.bad_images] == ["3b.png"]
    assert result.num_images == 6


def test_odd_images_in_archives_and_parquet(folder: Path, tmp_path: Path) -> None:
    rows = [{"bytes": file.read_bytes(), "path": file.name} for file in sorted(folder.iterdir())]
    rows.insert(2, {"bytes": encode(Image.new("RGB", ODD["long"])), "path": "odd.png"})
    write_parquet(tmp_path / "a.parquet", rows)
    dataset = open_dataset(str(tmp_path / "a.parquet"), load_protocol("clean-fid"), SIDE)
    assert sum(len(batch.names) for batch in dataset.batches(4)) == 6
    assert [name for name, _ in dataset.unreadable] == ["odd.png"]


# Without --size


def test_one_image_of_another_size_is_a_bad_image(folder: Path, cli) -> None:
    """It ended the run."""
    for place in ("0 first", "9 last"):
        odd = folder / f"{place}.png"
        Image.new("RGB", (20, 30)).save(odd)
        dataset = open_dataset(str(folder), TOKBENCH)
        assert sum(len(batch.names) for batch in dataset.batches(4)) == 6
        ((name, message),) = dataset.unreadable
        assert name == odd.name and message.startswith(f"{name}: 20x30 px, but the others have 32x32; ")
        assert "give --size S to bring all to S x S" in message
        done = cli("eval", "jpeg.q50", "--data", folder, "--metrics", "psnr", "--skip-bad", "--json",
                   "--out", folder.parent / "res")  # fmt: skip
        assert done.exit_code == 0, done.stderr
        (facts,) = json.loads(done.stdout)
        assert facts["num_images"] == 6 and [bad["name"] for bad in facts["bad_images"]] == [name]
        odd.unlink()


@pytest.mark.parametrize(
    ("common", "odd", "refused"), [(2, 1, False), (1, 1, True), (2, 2, True), (40, 2, False), (40, 3, True)]
)
def test_how_many_images_may_have_another_size(tmp_path: Path, common: int, odd: int, refused: bool) -> None:
    for number in range(common + odd):
        Image.new("RGB", (8, 8) if number < common else (9, 8 + number)).save(tmp_path / f"{number:02}.png")
    if refused:
        with pytest.raises(DataError, match=r"images of unequal sizes \(.* is 8x8, .* is 9x\d+\); give --size S"):
            open_dataset(str(tmp_path), TOKBENCH)
    else:
        assert open_dataset(str(tmp_path), TOKBENCH).common_size == (8, 8)


def test_photos_of_many_sizes_are_refused_after_few_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokbench.data.sources.folder import Folder

    read: list[int] = []
    for number in range(2_000):
        (tmp_path / f"{number:04}.png").touch()
    monkeypatch.setattr(Folder, "size", lambda self, position: read.append(position) or (8, 8 + position % 500))
    with pytest.raises(DataError, match="unequal sizes"):
        open_dataset(str(tmp_path), TOKBENCH)
    assert len(read) == 64
