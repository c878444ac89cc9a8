"""Images in one array: `arr_0` of an .npz file, as ADM's evaluation and those that followed it exchange samples."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.lib import format as npy
from PIL import Image

from tokbench.data.decode import MAX_PIXELS
from tokbench.data.sources.base import MAX_IMAGES, Source
from tokbench.errors import DataError, UnreadableImage
from tokbench.io.npz import read_member

MEMBER = "arr_0.npy"

MAX_UNPACKED = 1 << 32
"""Bytes of a compressed array, which must be held in memory: 4 GiB, 21,845 images of 256 x 256."""

MAX_RATIO = 100
"""How many times as large as in the file pixels may be: those of no photo are packed so well."""

_LOCAL = struct.Struct("<4s22xHH")
"""A zip member's own header: its mark, and the lengths of its name and of what else is before its data."""


class NpzSource(Source):
    """uint8 (N, H, W, 3), called by their places. An array that is not compressed stays on the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                info = archive.getinfo(MEMBER)
                self._pixels = _mapped(path, info) if info.compress_type == zipfile.ZIP_STORED else _held(archive, info)
            self._key = f"{info.CRC:08x}"
        except KeyError as error:
            raise DataError(f"{path} holds no array arr_0 of images, as np.savez(file, images) writes it") from error
        except Exception as error:  # what broken zips and headers raise has no common class
            raise DataError(f"{path} is not a readable .npz of images ({str(error)[:200]})") from error
        self.names = [f"{position:08d}" for position in range(len(self._pixels))]

    def read(self, position: int) -> bytes:
        return self._own(position).tobytes()

    def open(self, position: int) -> Image.Image:
        return Image.fromarray(self._own(position))

    def size(self, position: int) -> tuple[int, int]:
        return int(self._pixels.shape[2]), int(self._pixels.shape[1])

    def listing(self) -> list[tuple[str, int]]:
        return [(self._key, int(self._pixels.nbytes))]

    def _own(self, position: int) -> np.ndarray:
        try:
            return np.array(self._pixels[self._at(position)])
        except (OSError, ValueError) as error:
            raise UnreadableImage(f"{self._path}: image {position} cannot be read ({error})") from error


def holds_images(path: Path) -> bool:
    """Whether the array `arr_0` of an .npz is one of images; True where the file cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            if MEMBER not in archive.namelist():
                return False
            with archive.open(MEMBER) as member:
                header = io.BytesIO(member.read(1024))
    except Exception:
        return True
    try:
        _header(header)
    except Exception:  # an array of something else
        return False
    return True


def image_size(path: Path) -> tuple[int, int] | None:
    """Width and height of the images in a file, from the array's header alone; None where it holds no such array."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(MEMBER) as member:
            shape, _ = _header(member)
    except Exception:  # none there, or none that can be read, which is told where the images are wanted
        return None
    return shape[2], shape[1]


def _mapped(path: Path, info: zipfile.ZipInfo) -> np.ndarray:
    with path.open("rb") as file:
        file.seek(info.header_offset)
        mark, name, extra = _LOCAL.unpack(file.read(_LOCAL.size))
        if mark != b"PK\x03\x04":
            raise ValueError("its index does not lead to the array")
        file.seek(name + extra, io.SEEK_CUR)
        start = file.tell()
        shape, order = _header(file)
        _check(shape, info.file_size - (file.tell() - start))
        return np.memmap(path, np.uint8, "r", file.tell(), shape, order)


def _held(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    if info.file_size > min(MAX_UNPACKED, MAX_RATIO * info.compress_size + (1 << 20)):
        raise ValueError(f"compressed, it would take {info.file_size:,} bytes of memory; save it with np.savez")
    data = read_member(archive, info)
    file = io.BytesIO(data)
    shape, order = _header(file)
    _check(shape, len(data) - file.tell())
    return np.frombuffer(data, np.uint8, offset=file.tell()).reshape(shape, order=order)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], Literal["F", "C"]]:
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"format version {version} is not known")
    shape, fortran, dtype = read(file)
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or min(shape) < 1:
        raise ValueError(f"arr_0 is {dtype} {shape}; images are uint8 (N, H, W, 3)")
    if shape[1] * shape[2] > MAX_PIXELS:
        raise ValueError(f"images of {shape[2]} x {shape[1]} pixels, over the limit of {MAX_PIXELS}")
    return shape, "F" if fortran else "C"


def _check(shape: tuple[int, ...], held: int) -> None:
    if math.prod(shape) != held:
        raise ValueError(f"an array of {shape} does not fit its {held:,} bytes")
    if shape[0] > MAX_IMAGES:
        raise ValueError(f"more than {MAX_IMAGES:,} images")
