"""What every source of images is, and what all of them do with names."""

from __future__ import annotations

import hashlib
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import PurePosixPath

from PIL import Image

from tokbench.image import SUFFIXES, open_rgb, size_of

MAX_IMAGES = 1 << 24
"""More files or rows than this (16.8 million, above ImageNet-21k) are taken for a fault: a few bytes can claim them."""


def is_image(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(("._", "."))


def readable(name: str) -> str:
    """A name that can be printed and written anywhere: undecodable bytes as \\xe9, control characters escaped."""
    if name.isprintable():
        return name
    return "".join(_escaped(c) if unicodedata.category(c) in ("Cc", "Cs") else c for c in name)


def _escaped(character: str) -> str:
    byte = ord(character) - 0xDC00  # how Python holds a byte of a file name that is not UTF-8
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape").decode()


def by_hash(names: Sequence[str]) -> list[int]:
    """Positions in the order of a hash of the names: the first few are of all kinds, also where names are sorted by
    class."""
    return sorted(range(len(names)), key=lambda at: hashlib.sha256(names[at].encode(errors="surrogateescape")).digest())


class Source(ABC):
    """Images by position. `names` are relative paths, in the order in which they are read. Safe to read in threads."""

    names: list[str]

    @abstractmethod
    def read(self, position: int) -> bytes:
        """The file's bytes. Raises BadImage where it cannot be read."""

    @abstractmethod
    def listing(self) -> list[tuple[str, int]]:
        """(name, bytes) of what lies there: the cheap fingerprint of a dataset that has no name of its own."""

    def labels(self) -> dict[str, int] | None:
        """The class of each image by its name, where the source knows. Raises DataError where it cannot be read."""
        return None

    def open(self, position: int) -> Image.Image:
        """The decoded RGB image. Raises BadImage."""
        return open_rgb(self.read(position), self.names[position])

    def size(self, position: int) -> tuple[int, int]:
        """Width and height. Raises BadImage."""
        return size_of(self.read(position), self.names[position])

    def reorder(self, positions: Sequence[int]) -> None:
        """Take the images in this order from now on."""
        self._order = [self._at(p) for p in positions]
        self.names = [self.names[p] for p in positions]

    def _at(self, position: int) -> int:
        order: list[int] | None = getattr(self, "_order", None)
        return order[position] if order else position
