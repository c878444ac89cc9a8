"""Builders of images as bytes, and of folders, archives and Parquet files that hold them."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tokbench.data.sources.base import Source
from tokbench.errors import UnreadableImage

Members = Mapping[str, bytes] | Sequence[tuple[str, bytes]]
"""The files of an archive: their bytes by name, or pairs where a name occurs twice."""


def _pairs(members: Members) -> list[tuple[str, bytes]]:
    return list(members.items()) if isinstance(members, Mapping) else list(members)


def encode(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The bytes of an image file; `options` are those of Pillow's encoder."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def solid(level: int = 0, kind: str = "PNG", **options: object) -> bytes:
    """An image file of 8x8 pixels of one grey level."""
    return encode(Image.new("RGB", (8, 8), (level, level, level)), kind, **options)


def noise_pixels(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Uniform noise, uint8 (H, W, 3)."""
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_noise(folder: Path, count: int, side: int, digits: int = 3) -> Path:
    """Writes square PNG files of noise, named by their numbers of so many digits."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(noise_pixels(rng, side, side)).save(folder / f"{number:0{digits}d}.png")
    return folder


def write_gradients(folder: Path, count: int, side: int = 32) -> Path:
    """Writes square PNG files of noisy gradients: 000.png, 001.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, side)[None, :, None]
    for number in range(count):
        pixels = ramp * rng.random((1, 1, 3)) + 55 * rng.random((side, side, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:03d}.png")
    return folder


def write_files(folder: Path, members: Mapping[str, bytes]) -> Path:
    """Writes files into a folder, which is made with all folders in it; returns the folder."""
    for name, content in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def zip_bytes(members: Members, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in _pairs(members):
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_bytes(members: Members, mode: str = "w") -> bytes:
    """A tar archive; the mode "w:gz" compresses it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in _pairs(members):
            add_to_tar(archive, name, content)
    return buffer.getvalue()


def add_to_tar(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Appends one file to an open tar archive."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def pack(path: Path, members: Members) -> Path:
    """Writes the files as a zip, tar or compressed tar, by the suffix of the path, or as a folder; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".zip"):
        path.write_bytes(zip_bytes(members))
    elif path.name.endswith((".tar", ".tar.gz", ".tgz")):
        path.write_bytes(tar_bytes(members, "w" if path.suffix == ".tar" else "w:gz"))
    else:
        write_files(path, dict(_pairs(members)))
    return path


def add_to_archive(path: Path, name: str, content: bytes) -> None:
    """Appends one file to a zip or tar on disk."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, content)
    else:
        with tarfile.open(path, "a") as tar:
            add_to_tar(tar, name, content)


def npz_bytes(**arrays: np.ndarray) -> bytes:
    """An .npz file of arrays by name."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def image_rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Rows of Parquet's column `image`: grey images whose level and name are their number."""
    return [{"bytes": solid(first + at), "path": f"{first + at:03}.png"} for at in range(count)]


def parquet_bytes(
    rows: Sequence[Any],
    labels: Any = None,
    *,
    class_names: Sequence[str] = (),
    kind: pa.DataType | None = None,
    **options: Any,
) -> bytes:
    """A Parquet file with rows as the column `image` of type `kind` and, if given, `labels` as the column `label`;
    `class_names` go into the metadata as Hugging Face's `datasets` writes them."""
    columns = {"image": pa.array(rows, kind)}
    table = pa.table(columns if labels is None else columns | {"label": labels})
    if class_names:
        features = {"label": {"names": list(class_names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def write_parquet(path: Path, rows: Sequence[Any], labels: Any = None, **options: Any) -> Path:
    """Writes `parquet_bytes` to a file, in a folder that is made; returns the path."""
    return write_files(path.parent, {path.name: parquet_bytes(rows, labels, **options)}) / path.name


def red_levels(source: Source) -> dict[str, int | str]:
    """The red level of each image's first pixel by name, or the reason why it is a bad image."""
    found: dict[str, int | str] = {}
    for position, name in enumerate(source.names):
        try:
            found[name] = source.open(position).getpixel((0, 0))[0]
        except UnreadableImage as error:
            found[name] = str(error)
    return found


def write_labelled_noise(path: Path, count: int, classes: int) -> None:
    """Write a Parquet file with images of noise, 16x16 px, and with the labels 0 to `classes` - 1 in turn."""
    rng = np.random.default_rng(0)
    pictures = [encode(Image.fromarray(noise_pixels(rng, 16, 16))) for _ in range(count)]
    rows = [{"bytes": picture, "path": f"{place:03}.png"} for place, picture in enumerate(pictures)]
    write_parquet(path, rows, [place % classes for place in range(count)])
