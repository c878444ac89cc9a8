"""Reading images: files of every odd kind, folders and archives, named datasets, protocols."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import encode
from PIL import Image

from tokbench.data import decode as image_module
from tokbench.data.dataset import open_dataset
from tokbench.data.decode import open_rgb
from tokbench.data.sources.open import open_source
from tokbench.errors import DataError, UnreadableImage, UsageError
from tokbench.protocol.protocol import load_protocol

TOKBENCH = load_protocol("tokbench")


@pytest.fixture
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))


def test_rgb_is_left_as_it_is(noise: Image.Image) -> None:
    assert np.array_equal(np.asarray(open_rgb(encode(noise), "x")), np.asarray(noise))


def test_grey_is_repeated(noise: Image.Image) -> None:
    grey = noise.convert("L")
    assert np.array_equal(np.asarray(open_rgb(encode(grey), "x")), np.asarray(grey)[:, :, None].repeat(3, 2))


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    deep = Image.fromarray(np.array([[0, 257, 257 * 128, 65535]], dtype=np.uint16))
    assert np.asarray(open_rgb(encode(deep), "x"))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_transparency_lies_over_white() -> None:
    clear = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    assert open_rgb(encode(clear), "x").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["P", "CMYK", "1", "LA"])
def test_other_modes_become_rgb(noise: Image.Image, mode: str) -> None:
    kind = "TIFF" if mode == "CMYK" else "PNG"
    assert open_rgb(encode(noise.convert(mode), kind), "x").mode == "RGB"


def test_bad_files_are_named(noise: Image.Image) -> None:
    whole = encode(noise)
    for data, reason in [(b"", "empty"), (b"hello", "not an image"), (whole[: len(whole) // 2], "cannot be decoded")]:
        with pytest.raises(UnreadableImage, match=f"a/b.png: .*{reason}"):
            open_rgb(data, "a/b.png")


def test_decompression_bombs_are_bad_images(monkeypatch: pytest.MonkeyPatch, noise: Image.Image) -> None:
    monkeypatch.setattr(image_module, "MAX_PIXELS", 100)
    with pytest.raises(UnreadableImage, match="over the limit"):
        open_rgb(encode(noise), "x")


def test_all_forms_read_the_same_images(photo_folder: Path, tmp_path: Path) -> None:
    """Folder, zip, tar, tar.gz and Parquet of the same files: same order, same pixels, same hash."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = open_source(photo_folder).names
    assert names == ["more/photo4.png", "more/photo5.png", "photo0.png", "photo1.png", "photo2.png", "photo3.png"]
    shutil.make_archive(str(tmp_path / "a"), "zip", photo_folder)
    for kind in ("tar", "gztar"):
        shutil.make_archive(str(tmp_path / "a"), kind, photo_folder)
    rows = [{"bytes": (photo_folder / name).read_bytes(), "path": name} for name in names]
    pq.write_table(pa.table({"image": rows, "label": range(6)}), tmp_path / "a.parquet", row_group_size=4)
    hashes = set()
    for path in (photo_folder, tmp_path / "a.zip", tmp_path / "a.tar", tmp_path / "a.tar.gz", tmp_path / "a.parquet"):
        dataset = open_dataset(str(path), TOKBENCH)
        assert [name.removeprefix("./") for name in dataset.names] == names
        assert sum(len(batch.names) for batch in dataset.batches(4)) == 6
        hashes.add(dataset.sha256)
    assert len(hashes) == 1


def test_unreadable_archives_and_other_files_are_refused(tmp_path: Path) -> None:
    for name in ("a.zip", "a.tar", "a.parquet", "a.txt"):
        (tmp_path / name).write_bytes(b"not what it says")
        with pytest.raises(DataError, match=name):
            open_source(tmp_path / name)
    with pytest.raises(DataError, match="no such file"):
        open_source(tmp_path / "absent")


def test_parquet_without_images_names_its_columns(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"label": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"no column of images.*columns are label"):
        open_source(tmp_path / "a.parquet")


def test_bad_images_are_listed_and_the_rest_is_read(photo_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(photo_folder, tmp_path / "p")
    (tmp_path / "p" / "photo1.png").write_bytes(b"broken")
    (tmp_path / "p" / "notes.txt").write_text("not an image, not listed")
    dataset = open_dataset(str(tmp_path / "p"), TOKBENCH)
    batches = list(dataset.batches(4))
    assert [len(batch.names) for batch in batches] == [3, 2]
    assert [name for name, _ in dataset.unreadable] == ["photo1.png"]
    assert torch.cat([batch.index for batch in batches]).tolist() == [0, 1, 2, 4, 5]


def test_batches_are_the_pixels(photo_folder: Path, photos: torch.Tensor) -> None:
    dataset = open_dataset(str(photo_folder), TOKBENCH)
    read = torch.cat([batch.reference for batch in dataset.batches(4)])
    assert torch.equal(read, torch.cat([photos[4:], photos[:4]]))


def test_unequal_sizes_need_a_size(photo_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(photo_folder, tmp_path / "p")
    Image.new("RGB", (300, 200)).save(tmp_path / "p" / "wide.png")
    Image.new("RGB", (300, 200)).save(tmp_path / "p" / "wider.png")
    with pytest.raises(DataError, match=r"unequal sizes .*256x256.*wide.png is 300x200.*--size"):
        open_dataset(str(tmp_path / "p"), TOKBENCH)
    dataset = open_dataset(str(tmp_path / "p"), TOKBENCH, size=224)
    assert next(iter(dataset.batches(16))).reference.shape == (8, 3, 224, 224)
    assert dataset.num_upscaled == 2


def test_limit_takes_the_first(photo_folder: Path) -> None:
    dataset = open_dataset(str(photo_folder), TOKBENCH, limit=2)
    assert len(dataset) == 2
    assert dataset.names == ["more/photo4.png", "more/photo5.png"]


def test_path_datasets_are_named_by_their_content(photo_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / photo_folder.name
    shutil.copytree(photo_folder, copy)
    first = open_dataset(str(photo_folder), TOKBENCH).name
    assert open_dataset(str(copy), TOKBENCH).name == first
    (copy / "photo0.png").unlink()
    assert open_dataset(str(copy), TOKBENCH).name != first


def test_unknown_names_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'samples'"):
        open_dataset("sample", TOKBENCH)
    with pytest.raises(DataError, match="no images found"):
        open_dataset(str(tmp_path), TOKBENCH)


@pytest.fixture
def own_root(tmp_path: Path) -> Path:
    """A root with one dataset that users bring, ordered by the number in its names."""
    folder = tmp_path / "root" / "datasets" / "mine"
    folder.mkdir(parents=True)
    (folder / "dataset.toml").write_text(
        'title = "t"\nsize = 8\ncount = 3\nlicence = "none"\nget = "get it at home"\n'
        'sources = ["absent", "val", "val.tar"]\norder = "val_([0-9]+)"\n'
    )
    return tmp_path / "root"


def test_named_dataset_is_ordered_by_its_rule_in_every_form(
    own_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKBENCH_DATA", str(tmp_path / "data"))
    with pytest.raises(DataError, match=r"mine is not on this machine: looked for absent or val.*get it at home"):
        open_dataset("mine", TOKBENCH, root=own_root)
    place = tmp_path / "data" / "mine"
    (place / "val" / "b").mkdir(parents=True)
    for i, sub in [(10, "."), (9, "b"), (2, ".")]:
        Image.new("RGB", (8, 8), (i, i, i)).save(place / "val" / sub / f"val_{i}.png")
    dataset = open_dataset("mine", TOKBENCH, root=own_root)
    assert [Path(name).name for name in dataset.names] == ["val_2.png", "val_9.png", "val_10.png"]
    pixels = next(iter(dataset.batches(3))).reference[:, 0, 0, 0] * 255
    assert pixels.round().tolist() == [2, 9, 10]
    with tarfile.open(place / "val.tar", "w") as tar:
        for file in sorted((place / "val").rglob("*.png")):
            tar.add(file, arcname=file.name)
    shutil.rmtree(place / "val")
    again = open_dataset("mine", TOKBENCH, root=own_root)
    list(again.batches(3))
    assert again.sha256 == dataset.sha256


def test_an_incomplete_copy_is_refused(own_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKBENCH_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "mine" / "val").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "data" / "mine" / "val" / "val_1.png")
    with pytest.raises(DataError, match="should contain 3 images, but has 1"):
        open_dataset("mine", TOKBENCH, root=own_root)


def test_samples_are_whole(root: Path) -> None:
    """Every embedded image is found, and its pixels are those of the manifest (which is hash-checked on reading)."""
    dataset = open_dataset("samples", TOKBENCH, root=root)
    assert len(dataset) >= 100
    assert sum(len(batch.names) for batch in dataset.batches(16)) == len(dataset)
    assert dataset.unreadable == []
    assert dataset.num_upscaled == 0


def test_a_changed_sample_is_a_bad_image(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "datasets" / "samples"
    shutil.copytree(root / "datasets" / "samples", copy)
    page = sorted((copy / "pages").glob("*.png"))[0]
    Image.new("RGB", (256, 256)).save(page)
    dataset = open_dataset("samples", TOKBENCH, root=tmp_path)
    list(dataset.batches(16))
    assert len(dataset.unreadable) == 1
    assert "not those of the manifest" in dataset.unreadable[0][1]


def test_zip_members_with_a_bad_checksum_are_bad_images(photo_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(photo_folder.glob("*.png")):
            archive.write(file, file.name)
    data = bytearray(path.read_bytes())
    middle = data.find(b"IDAT") + 1000
    data[middle] ^= 0xFF
    path.write_bytes(bytes(data))
    dataset = open_dataset(str(path), TOKBENCH, size=64)
    list(dataset.batches(16))
    assert len(dataset.unreadable) == 1


def test_dataset_hash_is_that_of_the_pixels(photo_folder: Path, photos: torch.Tensor) -> None:
    dataset = open_dataset(str(photo_folder), TOKBENCH, limit=1)
    list(dataset.batches(1))
    pixels = (photos[4] * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    digest = hashlib.sha256(repr((256, 256, 3)).encode() + pixels.tobytes()).hexdigest()
    assert dataset.sha256 == hashlib.sha256(digest.encode()).hexdigest()
