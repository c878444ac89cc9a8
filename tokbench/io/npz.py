"""Zip members and the arrays of .npz files, unpacked within bounds: what a file claims of itself is never trusted."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

MAX_ARRAYS = 1 << 29
"""Bytes that the arrays of one file may take, unpacked: 512 MiB, eight times the largest statistics in use."""

METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""Of compression: those whose output is unpacked in small pieces."""


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """A zip member's bytes: never more than its claimed size, which the caller must have found acceptable.

    Raises ValueError and whatever zipfile and zlib do.
    """
    if info.compress_type not in METHODS:
        raise ValueError(f"compression method {info.compress_type} is not known; pack it stored or deflated")
    with archive.open(info) as member:
        # Asked for all there is, zipfile would unpack up to 2 GiB before it looked at the claimed size.
        data = member.read(info.file_size + 1)
    if len(data) != info.file_size:
        raise ValueError(f"it holds {len(data)} bytes and claims {info.file_size}")
    return data


def read_npz(path: Path, wanted: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, or those of them that are `wanted`. Nothing is unpickled. Raises ValueError where it
    is not one, or they are too large."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            if wanted is not None:
                infos = [info for info in infos if info.filename.removesuffix(".npy") in wanted]
            if (total := sum(info.file_size for info in infos)) > MAX_ARRAYS:
                raise ValueError(f"its arrays would take {total:,} bytes, over the limit of {MAX_ARRAYS:,}")
            arrays = {info.filename.removesuffix(".npy"): _array(read_member(archive, info)) for info in infos}
    except Exception as error:  # what broken zips and headers raise has no common class; MemoryError is among it
        raise ValueError(str(error)[:200] or type(error).__name__) from error
    if len(arrays) < len(infos):
        raise ValueError("two of its arrays have one name")
    return arrays


def _array(data: bytes) -> np.ndarray:
    """One .npy file. numpy's own reader makes room for what the header claims before it looks at what is there."""
    file = io.BytesIO(data)
    version = npy.read_magic(file)
    header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if header is None:
        raise ValueError(f"format version {version} is not known")
    shape, fortran, dtype = header(file)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are never loaded")
    start, count = file.tell(), math.prod(shape)
    if min(shape, default=0) < 0 or dtype.itemsize == 0 or count * dtype.itemsize != len(data) - start:
        raise ValueError(f"an array of {shape} {dtype} does not fit its {len(data) - start} bytes")
    if dtype.kind == "U":  # numpy makes text of any number, and Python breaks on it
        codes = np.frombuffer(data, np.dtype("u4").newbyteorder(dtype.byteorder), offset=start)
        if (codes > 0x10FFFF).any() or ((codes >= 0xD800) & (codes < 0xE000)).any():
            raise ValueError("it holds text that is not Unicode")
    return np.frombuffer(data, dtype, count, start).reshape(shape, order="F" if fortran else "C").copy()
