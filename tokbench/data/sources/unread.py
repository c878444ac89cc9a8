"""Data sets in forms that are not read. Pictures beside one may be its samples, and are then no data set themselves."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

NUMBERED = "-of-"
"""The key of files whose name ends in a number and a total, without a suffix: `train-00000-of-01024`."""

_CRC32C = 0x82F63B78
"""The polynomial of CRC-32C, reflected."""


def _begins(offset: int, magic: bytes) -> Callable[[Path], bool]:
    """Tells whether a file has these bytes there; True where it cannot be read."""

    def holds(path: Path) -> bool:
        head = _head(path, offset + len(magic))
        return head is None or head[offset:] == magic

    return holds


def _head(path: Path, count: int) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError:
        return None


def _by_name(path: Path) -> bool:
    return True


def begins_as_tfrecord(path: Path) -> bool:
    """Whether a file begins with a record's length and the masked CRC-32C of it."""
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


_LMDB = _begins(16, struct.pack("<I", 0xBEEFC0DE))
_HDF5 = _begins(0, b"\x89HDF\r\n\x1a\n")

UNREAD: dict[str, tuple[str, Callable[[Path], bool]]] = {
    ".tfrecord": ("TFRecord file", _by_name),
    ".tfrecords": ("TFRecord file", _by_name),
    ".tfrecord.gz": ("TFRecord file", _by_name),
    NUMBERED: ("TFRecord file", begins_as_tfrecord),
    ".lmdb": ("LMDB file", _LMDB),
    ".mdb": ("LMDB file", _LMDB),
    ".h5": ("HDF5 file", _HDF5),
    ".hdf5": ("HDF5 file", _HDF5),
    ".rec": ("RecordIO file", _begins(0, struct.pack("<I", 0xCED7230A))),
    ".beton": ("FFCV file", _by_name),
    ".mds": ("MDS file", _by_name),
}
"""By suffix: what a message calls them, and whether a file really is one, by its first bytes where these tell."""
