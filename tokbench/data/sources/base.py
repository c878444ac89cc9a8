"""What every source of images is, and what all of them do with names."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence

from PIL import Image

from tokbench.data.decode import OTHER_SUFFIXES, SUFFIXES, begins_as_image, open_rgb, size_of
from tokbench.io.left_out import NO_SUFFIX

MAX_IMAGES = 1 << 24
"""More files or rows than this (16.8 million, above ImageNet-21k) are taken for a fault: a few bytes can claim them."""


CLASSES_FILE = "classes.txt"
"""Lists the class folders that lie beside it (`tokbench.data.labels`)."""

MAX_CLASSES_BYTES = 1 << 24
"""Bytes of the longest such file that is read."""

_SERVICE = frozenset(
    ("@eadir", "@recycle", "__macosx", "$recycle.bin", "system volume information", "lost+found", "#recycle",
     "#snapshot", "thumbs.db")
)  # fmt: skip
"""Folders and files that operating systems and network disks keep beside a user's, in lower case."""

_NO_IMAGES = frozenset(
    (".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".yaml", ".yml", ".toml", ".ini",
     ".cfg", ".html", ".htm", ".pdf", ".tex", ".log", ".py", ".ipynb", ".sh", ".npy", ".npz", ".pt", ".pth", ".ckpt",
     ".safetensors", ".pkl", ".pickle", ".mat", ".h5", ".hdf5", ".db", ".sqlite", ".lmdb", ".mdb", ".arrow",
     ".parquet", ".tfrecord", ".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".zst", ".7z", ".rar", ".mp4", ".avi",
     ".mov", ".mkv", ".webm", ".wav", ".mp3", ".flac", ".md5", ".sha256")
)  # fmt: skip
"""Suffixes of files that are surely no picture, whose first bytes are not looked at."""


def is_hidden(name: str) -> bool:
    """Whether a relative path leads through a hidden or a service entry: what lies there belongs to no data set."""
    return any((part[:1] == "." and part != ".") or part.lower() in _SERVICE for part in name.split("/"))


def _suffix(name: str) -> str:
    """As pathlib's, in lower case; of a million names in a fifth of the time."""
    file = name.rpartition("/")[2]
    at = file.rfind(".")
    return file[at:].lower() if 0 < at < len(file) - 1 else ""


def is_image(name: str) -> bool:
    """Whether a file of that relative path is taken for an image."""
    return _suffix(name) in SUFFIXES and not is_hidden(name)


def is_left_out(name: str, head: Callable[[], bytes]) -> bool:
    """Whether a file that is no image by its suffix looks like one all the same: by a suffix of pictures that are not
    read, or, where the suffix says nothing, by its first bytes, which `head` reads."""
    suffix = _suffix(name)
    if suffix in SUFFIXES or suffix in _NO_IMAGES or is_hidden(name):
        return False
    return suffix in OTHER_SUFFIXES or begins_as_image(head())


def printable_name(name: str) -> str:
    """A name that can be printed and written anywhere: undecodable bytes as \\xe9, control characters escaped."""
    if name.isprintable():
        return name
    return "".join(_escaped(c) if unicodedata.category(c) in ("Cc", "Cs") else c for c in name)


def _escaped(character: str) -> str:
    byte = ord(character) - 0xDC00  # how Python holds a byte of a file name that is not UTF-8
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape").decode()


def hash_order(names: Sequence[str]) -> list[int]:
    """Positions in the order of a hash of the names: the first few are of all kinds, also where names are sorted by
    class."""
    return sorted(range(len(names)), key=lambda at: hashlib.sha256(names[at].encode(errors="surrogateescape")).digest())


class Source(ABC):
    """Images by position. `names` are relative paths, in the order in which they are read. Safe to read in threads."""

    names: list[str]
    passed: Sequence[str] = ()
    """The names of files beside them that look like images and are not read (`is_left_out`)."""

    @property
    def left_out(self) -> dict[str, int]:
        """How many files there are that look like images and are not read, by suffix."""
        suffixes = map(_suffix, self.passed)
        counted = Counter(s if re.fullmatch(r"\.[a-z][a-z0-9]{0,9}", s) else NO_SUFFIX for s in suffixes)
        return dict(sorted(counted.items()))

    @abstractmethod
    def read(self, position: int) -> bytes:
        """The file's bytes. Raises BadImage where it cannot be read."""

    @abstractmethod
    def listing(self) -> list[tuple[str, int]]:
        """(name, bytes) of what lies there: the cheap fingerprint of a dataset that has no name of its own."""

    def labels(self) -> dict[str, int] | None:
        """The class of each image by its name, where the source knows. Raises DataError where it cannot be read."""
        return None

    def class_list(self, folder: str) -> bytes | None:
        """The `classes.txt` in a folder (`a/b`, or "" for the outermost one); None where there is none. Raises
        DataError where it cannot be read."""
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
