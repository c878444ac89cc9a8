"""Recognises datasets in unsupported formats.

Images beside such a dataset may be samples of it, so they are not treated as a dataset of their own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

NUMBERED = "-of-"
"""Kind of files whose name ends in a number and a total, without a suffix: `train-00000-of-01024`."""

_CRC32C = 0x82F63B78
"""The reflected polynomial of CRC-32C."""


def _has_magic(offset: int, magic: bytes) -> Callable[[Path], bool]:
    """Return a function that checks whether a file has the bytes `magic` at `offset`; True if it cannot be read."""

    def check(path: Path) -> bool:
        head = _head(path, offset + len(magic))
        return head is None or head[offset:] == magic

    return check


def _head(path: Path, count: int) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError:
        return None


def _by_suffix(path: Path) -> bool:
    return True


def begins_as_tfrecord(path: Path) -> bool:
    """Return whether a file begins with the length of a TFRecord and its masked CRC-32C."""
    head = _head(path, 12)
    if head is None or len(head) < 12:
        return False
    crc = 0xFFFFFFFF
    for byte in head[:8]:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CRC32C if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return bool(masked == struct.unpack("<I", head[8:])[0])


_LMDB = _has_magic(16, struct.pack("<I", 0xBEEFC0DE))
_HDF5 = _has_magic(0, b"\x89HDF\r\n\x1a\n")

UNREAD: dict[str, tuple[str, Callable[[Path], bool]]] = {
    ".tfrecord": ("TFRecord file", _by_suffix),
    ".tfrecords": ("TFRecord file", _by_suffix),
    ".tfrecord.gz": ("TFRecord file", _by_suffix),
    NUMBERED: ("TFRecord file", begins_as_tfrecord),
    ".lmdb": ("LMDB file", _LMDB),
    ".mdb": ("LMDB file", _LMDB),
    ".h5": ("HDF5 file", _HDF5),
    ".hdf5": ("HDF5 file", _HDF5),
    ".rec": ("RecordIO file", _has_magic(0, struct.pack("<I", 0xCED7230A))),
    ".beton": ("FFCV file", _by_suffix),
    ".mds": ("MDS file", _by_suffix),
}
"""By suffix: the name of the format in messages, and a function that checks whether a file has the format, by its first
bytes if the format has a signature."""
