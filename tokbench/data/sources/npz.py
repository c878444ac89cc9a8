"""Images in one array, `arr_0` of an .npz file: the exchange format of ADM's evaluation suite and its successors."""

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
"""Limit on the bytes of a compressed array, which must fit into memory: 4 GiB, or 21,845 images of 256 x 256."""

MAX_RATIO = 100
"""Limit on the compression ratio of the pixels, which photos never reach."""

_LOCAL = struct.Struct("<4s22xHH")
"""The local header of a zip member: signature, length of the name and length of the extra field."""


class NpzSource(Source):
    """Images in an array, uint8 (N, H, W, 3), named by position. An uncompressed array is mapped, not loaded.

    The constructor raises DataError if the file contains no such array.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                info = archive.getinfo(MEMBER)
                stored = info.compress_type == zipfile.ZIP_STORED
                self._pixels = _map_array(path, info) if stored else _load_array(archive, info)
            self._key = f"{info.CRC:08x}"
        except KeyError as error:
            raise DataError(f"{path} has no array arr_0 of images, as np.savez(file, images) writes it") from error
        except Exception as error:  # the errors of damaged zips and headers have no common class
            raise DataError(f"{path} is not a readable .npz of images ({str(error)[:200]})") from error
        self.names = [f"{position:08d}" for position in range(len(self._pixels))]

    def read(self, position: int) -> bytes:
        return self._image(position).tobytes()

    def open(self, position: int) -> Image.Image:
        return Image.fromarray(self._image(position))

    def size(self, position: int) -> tuple[int, int]:
        return int(self._pixels.shape[2]), int(self._pixels.shape[1])

    def listing(self) -> list[tuple[str, int]]:
        return [(self._key, int(self._pixels.nbytes))]

    def _image(self, position: int) -> np.ndarray:
        try:
            return np.array(self._pixels[self._at(position)])
        except (OSError, ValueError) as error:
            raise UnreadableImage(f"{self._path}: image {position} cannot be read ({error})") from error


def holds_images(path: Path) -> bool:
    """Return whether the array `arr_0` of an .npz contains images; True if the file cannot be read."""
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
    except Exception:  # the array does not contain images
        return False
    return True


def image_size(path: Path) -> tuple[int, int] | None:
    """Return width and height of the images in an .npz, reading only the array's header; None if it has no images."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(MEMBER) as member:
            shape, _ = _header(member)
    except Exception:  # there is no readable array; opening the source reports the reason
        return None
    return shape[2], shape[1]


def _map_array(path: Path, info: zipfile.ZipInfo) -> np.ndarray:
    with path.open("rb") as file:
        file.seek(info.header_offset)
        signature, name, extra = _LOCAL.unpack(file.read(_LOCAL.size))
        if signature != b"PK\x03\x04":
            raise ValueError("its index does not point to the array")
        file.seek(name + extra, io.SEEK_CUR)
        start = file.tell()
        shape, order = _header(file)
        _check(shape, info.file_size - (file.tell() - start))
        return np.memmap(path, np.uint8, "r", file.tell(), shape, order)


def _load_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    if info.file_size > min(MAX_UNPACKED, MAX_RATIO * info.compress_size + (1 << 20)):
        raise ValueError(f"unpacked, it would take {info.file_size:,} bytes of memory; save it with np.savez")
    data = read_member(archive, info)
    file = io.BytesIO(data)
    shape, order = _header(file)
    _check(shape, len(data) - file.tell())
    return np.frombuffer(data, np.uint8, offset=file.tell()).reshape(shape, order=order)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], Literal["F", "C"]]:
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"format version {version} is not supported")
    shape, fortran, dtype = read(file)
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or min(shape) < 1:
        raise ValueError(f"arr_0 is {dtype} {shape}, but images must be uint8 (N, H, W, 3)")
    if shape[1] * shape[2] > MAX_PIXELS:
        raise ValueError(f"images of {shape[2]} x {shape[1]} pixels, over the limit of {MAX_PIXELS}")
    return shape, "F" if fortran else "C"


def _check(shape: tuple[int, ...], num_bytes: int) -> None:
    if math.prod(shape) != num_bytes:
        raise ValueError(f"an array of {shape} does not fit its {num_bytes:,} bytes")
    if shape[0] > MAX_IMAGES:
        raise ValueError(f"more than {MAX_IMAGES:,} images")
