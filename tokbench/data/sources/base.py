"""Source: the base class of all image sources, and the functions for file names that they share."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from PIL import Image

from tokbench.data.decode import OTHER_SUFFIXES, begins_as_image, is_read_suffix, open_rgb, size_of
from tokbench.io.left_out import NO_SUFFIX

MAX_IMAGES = 1 << 24
"""Limit on files or rows (16.8 million, more than ImageNet-21k): a few bytes of metadata can claim any number."""


CLASSES_FILE = "classes.txt"
"""Name of the file that lists the class folders beside it (`tokbench.data.labels`)."""

MAX_CLASSES_BYTES = 1 << 24
"""Limit on the bytes of such a file."""

_SERVICE = frozenset(
    ("@eadir", "@recycle", "__macosx", "$recycle.bin", "system volume information", "lost+found", "#recycle",
     "#snapshot", "thumbs.db")
)  # fmt: skip
"""Names of folders and files that operating systems and network drives create, in lower case."""

_NO_IMAGES = frozenset(
    (".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".yaml", ".yml", ".toml", ".ini",
     ".cfg", ".html", ".htm", ".pdf", ".tex", ".log", ".py", ".ipynb", ".sh", ".npy", ".npz", ".pt", ".pth", ".ckpt",
     ".safetensors", ".pkl", ".pickle", ".mat", ".h5", ".hdf5", ".db", ".sqlite", ".lmdb", ".mdb", ".arrow",
     ".parquet", ".tfrecord", ".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".zst", ".7z", ".rar", ".mp4", ".avi",
     ".mov", ".mkv", ".webm", ".wav", ".mp3", ".flac", ".md5", ".sha256")
)  # fmt: skip
"""Suffixes of files that are never images, so that their first bytes need not be read."""


def is_hidden(name: str) -> bool:
    """Return whether a relative path contains a hidden or system entry. Such files do not belong to a dataset."""
    return any((part[:1] == "." and part != ".") or part.lower() in _SERVICE for part in name.split("/"))


def _suffix(name: str) -> str:
    """Return the suffix of a file name in lower case. It equals pathlib's, which takes five times as long."""
    file = name.rpartition("/")[2]
    dot = file.rfind(".")
    return file[dot:].lower() if 0 < dot < len(file) - 1 else ""


def is_image(name: str) -> bool:
    """Return whether a file with that relative path is treated as an image."""
    return is_read_suffix(_suffix(name)) and not is_hidden(name)


def is_left_out(name: str, head: Callable[[], bytes]) -> bool:
    """Return whether a file looks like an image although it is not treated as one.

    This is decided by the suffix of an unsupported image format or, for unknown suffixes, by the first bytes of the
    file, which `head` reads.
    """
    suffix = _suffix(name)
    if is_read_suffix(suffix) or suffix in _NO_IMAGES or is_hidden(name):
        return False
    return suffix in OTHER_SUFFIXES or begins_as_image(head())


def describe_files(names: Iterable[str]) -> str:
    """Return the number of files by suffix, with the most frequent first: `2 .txt files, 1 file without a suffix`."""
    counts = Counter(_suffix(name) for name in names if not is_hidden(name))
    parts = []
    for suffix, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        noun = f"file{'s' if count > 1 else ''}"
        parts.append(f"{count:,} {suffix} {noun}" if suffix else f"{count:,} {noun} without a suffix")
    shown = parts[:_MAX_SUFFIXES] + (["other files"] if len(parts) > _MAX_SUFFIXES else [])
    return ", ".join(shown) or "nothing"


_MAX_SUFFIXES = 5
"""Number of suffixes that a message lists."""


def printable_name(name: str) -> str:
    """Return a printable form of a name: undecodable bytes (as \\xe9) and control characters are escaped."""
    if name.isprintable():
        return name
    return "".join(_escaped(c) if unicodedata.category(c) in ("Cc", "Cs") else c for c in name)


def _escaped(character: str) -> str:
    byte = ord(character) - 0xDC00  # Python represents undecodable bytes of file names as surrogates
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape").decode()


def hash_order(names: Sequence[str]) -> list[int]:
    """Return the positions sorted by a hash of the names, so that the first images represent all classes."""
    return sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode(errors="surrogateescape")).digest())


class Source(ABC):
    """A sequence of images that are read by position, from any number of threads.

    names: relative paths, in reading order. left_out_names: names of files in the same place that look like images but
    are not read (`is_left_out`).
    """

    has_columns: bool = False
    """Whether `ReadOptions.column` can select the images."""

    sorted_by_name: bool = False
    """Whether the order is that of the names, so that the first images may all be of one class."""

    names: list[str]
    left_out_names: Sequence[str] = ()
    instead: str = ""
    """What the source contains, if it contains no images."""

    @property
    def inner_names(self) -> list[str]:
        """Paths below the given folder or in the archive that contains the image, by which class folders are found."""
        return self.names

    @property
    def left_out(self) -> dict[str, int]:
        """Number of files that look like images but are not read, by suffix."""
        suffixes = map(_suffix, self.left_out_names)
        counted = Counter(s if re.fullmatch(r"\.[a-z][a-z0-9]{0,9}", s) else NO_SUFFIX for s in suffixes)
        return dict(sorted(counted.items()))

    @abstractmethod
    def read(self, position: int) -> bytes:
        """Return the bytes of the file. Raises UnreadableImage if it cannot be read."""

    @abstractmethod
    def listing(self) -> list[tuple[str, int]]:
        """Return (name, bytes) of each file, a cheap fingerprint of a dataset without a name."""

    def labels(self) -> dict[str, int] | None:
        """Return the label of each image by its name; None if the source has none.

        Raises DataError if the labels cannot be read.
        """
        return None

    def class_list(self, folder: str) -> bytes | None:
        """Return the content of `classes.txt` in a folder (`a/b`, or "" for the root); None if there is no such file.

        Raises DataError if the file cannot be read.
        """
        return None

    def open(self, position: int) -> Image.Image:
        """Return the decoded RGB image. Raises UnreadableImage."""
        return open_rgb(self.read(position), self.names[position])

    def size(self, position: int) -> tuple[int, int]:
        """Return width and height. Raises UnreadableImage."""
        return size_of(self.read(position), self.names[position])

    def reorder(self, positions: Sequence[int]) -> None:
        """Replace the images by those at `positions`, in this order."""
        self._order = [self._at(p) for p in positions]
        self.names = [self.names[p] for p in positions]

    def _at(self, position: int) -> int:
        order: list[int] | None = getattr(self, "_order", None)
        return order[position] if order else position
