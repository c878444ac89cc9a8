"""Folders of images: what lies below one, and the images themselves as a source.

Hidden and service entries below the folder are no part of it (`tokbench.data.sources.base.is_hidden`); the folder
itself may be hidden.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tokbench.data.decode import MAGIC_BYTES, refuse_large, size_of
from tokbench.data.sources import archive, npz, parquet
from tokbench.data.sources.base import (
    CLASSES_FILE,
    MAX_CLASSES_BYTES,
    Source,
    is_hidden,
    is_image,
    is_left_out,
    printable_name,
)
from tokbench.data.sources.unread import NUMBERED, UNREAD
from tokbench.errors import DataError, UnreadableImage

_LEAVES = "a link that leaves the dataset's folder, which is not followed; give --follow-links where you trust it"

KINDS = {
    ".parquet": ("Parquet file", parquet.holds_images),
    ".arrow": ("Arrow file", parquet.arrow_holds_images),
    ".zip": ("zip file", archive.zip_holds_images),
    ".npz": ("npz file", npz.holds_images),
} | dict.fromkeys(archive.SUFFIXES, ("tar file", archive.tar_holds_images))
"""Of files that hold many images: what a message calls them, and whether one really does, by a short look."""

KINDS |= UNREAD

_LOOKED_INTO = 100
"""Files of each kind that are looked into for images: folders may hold an .npz beside every picture."""


def kind_of(name: str) -> str | None:
    """The key of KINDS for a file that may hold many images; None for any other. `x.tfrecord-00000-of-00010` is called
    by what comes before its number; where nothing does, it may be a TFRecord file all the same."""
    plain = _NUMBERED.sub("", name.lower())
    found = next((suffix for suffix in KINDS if suffix != NUMBERED and plain.endswith(suffix)), None)
    return found or (NUMBERED if len(plain) < len(name) else None)


_NUMBERED = re.compile(r"-\d+-of-\d+$")


@dataclass
class Found:
    """What lies below a folder, by paths relative to it.

    images: (name, file, why it cannot be read or ""); a folder that cannot be read is among them, since it may hold
    images. packed: files that may hold many images. passed: files that look like images and are not read.
    """

    root: Path
    images: list[tuple[str, Path, str]] = field(default_factory=list)
    packed: list[tuple[str, Path]] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)

    @property
    def pictures(self) -> list[str]:
        """The names of the image files."""
        return [name for name, _, _ in self.images if is_image(name)]

    @property
    def pack(self) -> list[tuple[str, Path]]:
        """The packed files that may be the data set: where there are no pictures, those that are read, if any."""
        read = [entry for entry in self.packed if kind_of(entry[0]) not in UNREAD]
        return read if read and not self.pictures else self.packed

    def holders(self) -> list[tuple[str, Path]]:
        """Those of `pack` that hold images, as far as a short look into the first ones tells."""
        looked: Counter[str] = Counter()
        holding: set[str] = set()
        kept = []
        for name, file in self.pack:
            suffix = kind_of(name) or ""
            looked[suffix] += 1
            if KINDS[suffix][1](file) if looked[suffix] <= _LOOKED_INTO else suffix in holding:
                holding.add(suffix)
                kept.append((name, file))
        return kept


def look(root: Path, follow_links: bool) -> Found:
    """Everything below a folder. Raises DataError where the folder itself cannot be listed."""
    found = Found(root.resolve())
    _walk(found, [("", found.root)], follow_links)
    return _sorted(found)


def look_at(root: Path, names: Iterable[str], follow_links: bool) -> Found:
    """What some paths below a folder are: files, and all that lies below those that are folders. As in `look`, what
    lies below a link to a folder inside stands under its own name alone."""
    found, folders = Found(root.resolve()), []
    linked = {"": False}  # by the parent's name, whether a link inside leads to it
    for name in names:
        parent = name.rpartition("/")[0]
        if parent not in linked:
            linked[parent] = _led_by_link(found.root, parent)
        if is_hidden(name) or linked[parent]:
            continue
        if _enter(found, name, found.root / name, follow_links):
            folders.append((f"{name}/", found.root / name))
    _walk(found, folders, follow_links)
    found.images = list({entry[0]: entry for entry in found.images}.values())  # a pattern may match a folder and more
    found.packed, found.passed = list(dict(found.packed).items()), list(dict.fromkeys(found.passed))
    return _sorted(found)


def _led_by_link(root: Path, name: str) -> bool:
    """Whether a folder below `root` is reached by a link, and lies below `root` all the same."""
    folder = root / name
    return folder.resolve() != folder and folder.resolve().is_relative_to(root)


def _sorted(found: Found) -> Found:
    found.images.sort(key=lambda entry: entry[0])
    found.packed.sort()
    found.passed.sort()
    return found


def _walk(found: Found, waiting: list[tuple[str, Path]], follow_links: bool) -> None:
    """Take in what lies below the folders that wait, as (prefix of its names, folder); no folder twice."""
    seen = set()
    while waiting:
        prefix, folder = waiting.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:  # a circle of links, or two links to one place
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            if not prefix:
                raise DataError(f"{folder} cannot be listed ({error.strerror}); check its permissions") from error
            reason = f"a folder that cannot be listed ({error.strerror}); check its permissions"
            found.images.append((printable_name(prefix), folder, reason))
            continue
        for entry in entries:
            if not is_hidden(entry.name) and _enter(found, prefix + entry.name, entry, follow_links):
                waiting.append((f"{prefix}{entry.name}/", folder / entry.name))


def _enter(found: Found, name: str, entry: os.DirEntry[str] | Path, follow_links: bool) -> bool:
    """Take in one entry, unless it is a folder whose entries are to be taken in: then True."""
    mode, inside = _mode(entry, found.root)
    file = Path(entry)
    reason = "" if inside or follow_links else _LEAVES
    if stat.S_ISDIR(mode):
        if reason:
            found.images.append((printable_name(name), file, reason))
        # Below a link to a folder inside, images stand under their own names.
        return not reason and not (entry.is_symlink() and inside)
    if is_image(name):
        reason = reason or ("" if stat.S_ISREG(mode) else "leads to no file; remove it")
        found.images.append((printable_name(name), file, reason))
    elif stat.S_ISREG(mode) and is_left_out(name, lambda: b"" if reason else _head(file)):
        found.passed.append(printable_name(name))
    elif stat.S_ISREG(mode) and kind_of(name):
        found.packed.append((printable_name(name), file))
    return False


def _mode(entry: os.DirEntry[str] | Path, root: Path) -> tuple[int, bool]:
    """Folder, file or 0, of an entry or of what it links to, and whether that lies below `root`."""
    if isinstance(entry, os.DirEntry) and not entry.is_symlink():
        return stat.S_IFDIR if entry.is_dir() else stat.S_IFREG if entry.is_file() else 0, True
    try:
        return stat.S_IFMT(entry.stat().st_mode), Path(entry).resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # links to nothing, or in a circle, for which pathlib had a RuntimeError
        return 0, True


def _head(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(MAGIC_BYTES)
    except OSError:
        return b""


class Folder(Source):
    """Every image file below a folder, by sorted relative path; or those that were found by another search."""

    def __init__(self, path: Path | Found, follow_links: bool = False) -> None:
        found = path if isinstance(path, Found) else look(path, follow_links)
        self._files = [(file, reason) for _, file, reason in found.images]
        self.names = [name for name, _, _ in found.images]
        self.passed = found.passed
        self._root = found.root

    def read(self, position: int) -> bytes:
        file = self._file(position)
        try:
            refuse_large(file.stat().st_size, self.names[position])
            return file.read_bytes()
        except OSError as error:
            raise self._unreadable(position, error) from error

    def listing(self) -> list[tuple[str, int]]:
        return [(name, _bytes_of(self._files[self._at(i)][0])) for i, name in enumerate(self.names)]

    def size(self, position: int) -> tuple[int, int]:
        try:
            with self._file(position).open("rb") as file:
                return size_of(file.read(65536), self.names[position])
        except (OSError, UnreadableImage):  # some headers lie deeper than 64 KiB
            return super().size(position)

    def class_list(self, folder: str) -> bytes | None:
        return read_class_list(self._root / folder / CLASSES_FILE)

    def _file(self, position: int) -> Path:
        file, reason = self._files[self._at(position)]
        if reason:
            raise UnreadableImage(f"{self.names[position]}: {reason}")
        return file

    def _unreadable(self, position: int, error: OSError) -> UnreadableImage:
        remedy = "it was there when the run began" if isinstance(error, FileNotFoundError) else "check its permissions"
        return UnreadableImage(f"{self.names[position]}: cannot be read ({error.strerror}); {remedy}")


def read_class_list(file: Path) -> bytes | None:
    """The bytes of a `classes.txt`; None where there is no such file. Raises DataError where it cannot be read."""
    try:
        if not file.is_file():
            return None
        if file.stat().st_size > MAX_CLASSES_BYTES:
            raise DataError(f"{file} holds more than {MAX_CLASSES_BYTES:,} bytes, which is no list of classes")
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror})") from error


def _bytes_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # it vanished, or is a link to nothing: reading it will say so
        return 0


def count_kinds(names: Iterable[str]) -> Iterator[str]:
    """Packed files in words, by kind: "4 Parquet files", "1 zip file"."""
    for word, count in Counter(KINDS[kind_of(name) or ""][0] for name in names).items():
        yield f"{count:,} {word}{'s' if count > 1 else ''}"
