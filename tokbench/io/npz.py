"""Reads zip members and the arrays of .npz files with size limits. Sizes claimed by a file are never trusted."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

MAX_ARRAYS = 1 << 29
"""Limit on the unpacked bytes of the arrays of one file: 512 MiB, eight times the largest statistics in use."""

METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""Supported compression methods, whose output can be unpacked in small pieces."""


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return the bytes of a zip member, at most its claimed size, which the caller must have checked.

    Raises ValueError if the size or the compression method is wrong, and all errors of zipfile and zlib.
    """
    if info.compress_type not in METHODS:
        raise ValueError(f"compression method {info.compress_type} is not supported; pack it stored or deflated")
    with archive.open(info) as member:
        # Without a length, zipfile would unpack up to 2 GiB before it compares with the claimed size.
        data = member.read(info.file_size + 1)
    if len(data) != info.file_size:
        raise ValueError(f"it contains {len(data)} bytes but claims {info.file_size}")
    return data


def read_npz(path: Path, wanted: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file by name; with `wanted`, only those. Nothing is unpickled.

    Raises ValueError if the file is not a valid .npz file, or if its arrays are larger than `MAX_ARRAYS` bytes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            if wanted is not None:
                infos = [info for info in infos if info.filename.removesuffix(".npy") in wanted]
            if (total := sum(info.file_size for info in infos)) > MAX_ARRAYS:
                raise ValueError(f"its arrays would take {total:,} bytes, over the limit of {MAX_ARRAYS:,}")
            arrays = {info.filename.removesuffix(".npy"): _array(read_member(archive, info)) for info in infos}
    except Exception as error:  # damaged zips and headers raise errors without a common class, such as MemoryError
        raise ValueError(str(error)[:200] or type(error).__name__) from error
    if len(arrays) < len(infos):
        raise ValueError("two of its arrays have the same name")
    return arrays


def _array(data: bytes) -> np.ndarray:
    """Parse one .npy file. NumPy's reader would allocate the claimed size before it reads the data."""
    file = io.BytesIO(data)
    version = npy.read_magic(file)
    header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if header is None:
        raise ValueError(f"format version {version} is not supported")
    shape, fortran, dtype = header(file)
    if dtype.hasobject:
        raise ValueError("it contains pickled objects, which are never loaded")
    start, count = file.tell(), math.prod(shape)
    if min(shape, default=0) < 0 or dtype.itemsize == 0 or count * dtype.itemsize != len(data) - start:
        raise ValueError(f"an array of shape {shape} and type {dtype} does not fit its {len(data) - start} bytes")
    if dtype.kind == "U":  # NumPy does not check code points, and Python fails on invalid ones
        codes = np.frombuffer(data, np.dtype("u4").newbyteorder(dtype.byteorder), offset=start)
        if (codes > 0x10FFFF).any() or ((codes >= 0xD800) & (codes < 0xE000)).any():
            raise ValueError("it contains text that is not valid Unicode")
    return np.frombuffer(data, dtype, count, start).reshape(shape, order="F" if fortran else "C").copy()
