"""Images in one array of an .npz or .npy file: the exchange format of ADM's evaluation suite and its successors."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from pathlib import Path
from typing import IO, Literal, NamedTuple

import numpy as np
from numpy.lib import format as npy
from PIL import Image

from tokbench.data import pixel_arrays
from tokbench.data.decode import MAX_PIXELS
from tokbench.data.sources.base import MAX_IMAGES, Source
from tokbench.data.sources.lfs import refuse_pointer
from tokbench.errors import DataError, TokbenchError, UnreadableImage, UsageError
from tokbench.io.npz import read_member

MEMBER = "arr_0.npy"
"""The usual name of the array. If it contains images, it is used, whatever other arrays contain."""

MAX_UNPACKED = 1 << 32
"""Limit on the bytes of a compressed array, which must fit into memory: 4 GiB, or 21,845 images of 256 x 256."""

MAX_RATIO = 100
"""Limit on the compression ratio of the pixels, which photos never reach."""

_LOCAL = struct.Struct("<4s22xHH")
"""The local header of a zip member: signature, length of the name and length of the extra field."""

_EXPECTED = "images must be uint8 (N, H, W, 3), (N, 3, H, W) or (N, H, W)"


class NpzSource(Source):
    """Images in an array, uint8 (N, H, W, C), (N, C, H, W) or grey (N, H, W), named by position.

    An uncompressed array is mapped, not loaded. array: its name; None if only one array contains images. The
    constructor raises DataError if the file contains no such array, UsageError if the choice is ambiguous.
    """

    def __init__(self, path: Path, array: str | None = None) -> None:
        self._path = path
        self.has_columns = path.suffix.lower() != ".npy"  # an .npy is one array
        try:
            if path.suffix.lower() == ".npy":
                self._pixels, self._key = _map_npy(path), path.name
            else:
                with zipfile.ZipFile(path) as archive:
                    info = _choose(path, archive, array)
                    stored = info.compress_type == zipfile.ZIP_STORED
                    self._pixels = _map_array(path, info) if stored else _load_array(archive, info)
                self._key = f"{info.CRC:08x}"
        except TokbenchError:
            raise
        except Exception as error:  # the errors of damaged zips and headers have no common class
            refuse_pointer(path)
            raise DataError(f"{path} is not a readable file of images ({str(error)[:200]})") from error
        self.names = [f"{position:08d}" for position in range(len(self._pixels))]

    def read(self, position: int) -> bytes:
        return self._image(position).tobytes()

    def open(self, position: int) -> Image.Image:
        return Image.fromarray(pixel_arrays.as_rgb(self._image(position)))

    def size(self, position: int) -> tuple[int, int]:
        return pixel_arrays.size_of(self._pixels.shape[1:])

    def listing(self) -> list[tuple[str, int]]:
        return [(self._key, int(self._pixels.nbytes))]

    def _image(self, position: int) -> np.ndarray:
        try:
            return np.array(self._pixels[self._at(position)])
        except (OSError, ValueError) as error:
            raise UnreadableImage(f"{self._path}: image {position} cannot be read ({error})") from error


class _Array(NamedTuple):
    """An array of a file. reason: why it cannot contain images, or ""."""

    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: str
    reason: str

    @property
    def name(self) -> str:
        return self.info.filename.removesuffix(".npy")


def _arrays(archive: zipfile.ZipFile) -> list[_Array]:
    """Return the arrays of a file, of which only the headers are read."""
    found = []
    for info in archive.infolist():
        if not info.filename.endswith(".npy"):
            continue
        shape: tuple[int, ...] = ()
        dtype = reason = ""
        try:
            with archive.open(info) as member:
                shape, _, dtype = _read_header(io.BytesIO(member.read(1024)))
            _check_images(info.filename.removesuffix(".npy"), shape, dtype)
        except Exception as error:  # errors of damaged zips and headers, and ValueError for other arrays
            reason = str(error)
        found.append(_Array(info, shape, dtype, reason))
    return found


def _choose(path: Path, archive: zipfile.ZipFile, requested: str | None) -> zipfile.ZipInfo:
    """Return the member that contains the images. Raises DataError if there is none, UsageError if it is unclear."""
    arrays = _arrays(archive)
    listed = ", ".join(f"{one.name} ({one.dtype} {one.shape})" for one in arrays[:8]) or "none"
    if requested is not None:
        one = next((one for one in arrays if one.name == requested), None)
        if one is None:
            raise UsageError(f"{path} has no array '{requested}'; its arrays are {listed}")
        if one.reason:
            raise DataError(f"{path}: {one.reason}")
        return one.info
    usual = next((one for one in arrays if one.info.filename == MEMBER), None)
    images = [one for one in arrays if not one.reason]
    colour = [one for one in images if len(one.shape) == 4]
    chosen = [usual] if usual in images else colour or images
    if len(chosen) > 1:
        names = ", ".join(one.name for one in chosen if one)
        raise UsageError(f"{path} has several arrays of images ({names}); choose one with --column {chosen[0].name}")
    if not chosen:
        if len(arrays) == 1 or usual:
            raise DataError(f"{path} is not a readable file of images ({(usual or arrays[0]).reason[:200]})")
        raise DataError(f"{path} has no array of images; its arrays are {listed}, and {_EXPECTED}")
    return chosen[0].info


def holds_images(path: Path) -> bool:
    """Return whether an .npz has an array of colour images; True if the file cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(len(one.shape) == 4 and not one.reason for one in _arrays(archive))
    except Exception:
        return True


def image_size(path: Path) -> tuple[int, int] | None:
    """Return width and height of the images in `arr_0` of an .npz, reading only its header; None if it has none."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(MEMBER) as member:
            shape, _ = _header(member)
        return pixel_arrays.size_of(shape[1:])
    except Exception:  # there is no readable array; opening the source reports the reason
        return None


def _map_npy(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        shape, order = _header(file)
        _check(shape, path.stat().st_size - file.tell())
        return np.memmap(path, np.uint8, "r", file.tell(), shape, order)


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
    shape, order, dtype = _read_header(file)
    _check_images("the array", shape, dtype)
    return shape, order


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], Literal["F", "C"], str]:
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"format version {version} is not supported")
    shape, fortran, dtype = read(file)
    return shape, "F" if fortran else "C", str(dtype)


def _check_images(name: str, shape: tuple[int, ...], dtype: str) -> None:
    """Raise ValueError, with a remedy, if an array is not one of images."""
    if dtype != "uint8":
        remedy = "; convert values in [0, 1] with (255 * x).round().astype(np.uint8)" if "float" in dtype else ""
        raise ValueError(f"{name} is {dtype} {shape}, but {_EXPECTED}{remedy}")
    grey = len(shape) == 3
    if len(shape) not in (3, 4) or min(shape) < 1 or (grey and shape[2] in (3, 4)):  # (H, W, 3) is one image
        raise ValueError(f"{name} is {dtype} {shape}, but {_EXPECTED}")
    try:
        width, height = pixel_arrays.size_of(shape[1:])
    except ValueError as error:
        raise ValueError(f"{name} is {dtype} {shape}, but {_EXPECTED}") from error
    if width * height > MAX_PIXELS:
        raise ValueError(f"images of {width} x {height} pixels, over the limit of {MAX_PIXELS}")


def _check(shape: tuple[int, ...], num_bytes: int) -> None:
    if math.prod(shape) != num_bytes:
        raise ValueError(f"an array of {shape} does not fit its {num_bytes:,} bytes")
    if shape[0] > MAX_IMAGES:
        raise ValueError(f"more than {MAX_IMAGES:,} images")
