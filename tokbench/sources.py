"""Where images come from: folder, zip, tar, array, Parquet files, manifest. Names in order, read by position.

What cannot be read stops nothing: it keeps its place among the names, and reading it raises BadImage. What makes a
dataset ambiguous, or was made to harm, is refused as a whole, with a DataError:

    folders    links that leave the folder are bad images unless they are followed (`follow_links`); links to a folder
               inside it are not descended, since its images stand under their own names; no folder is read twice
    archives   a name that climbs out (.., /, a drive, a backslash) or comes twice: the archive is refused; only
               regular files are read, a link or device with an image's name is a bad image; a cut-off tar is refused
    arrays     arr_0 of an .npz, uint8 (N, H, W, 3), called by their places; anything else is refused
    Parquet    a path that comes twice gets its row behind it, a row without one is called by its number
    names      in the order of their code points, so that no file system decides it; case matters; bytes that are not
               UTF-8, and control characters, are shown escaped
    sizes      nothing over image.MAX_BYTES is read into memory, whatever it claims

Any number of threads may read and decode at once: where a file handle is shared, its bytes are read under a lock.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import stat
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from tokbench import archives
from tokbench.archives import Tar, Zip
from tokbench.arrays import Arrays
from tokbench.errors import BadImage, DataError
from tokbench.image import refuse_large, size_of
from tokbench.parquet import Parquet
from tokbench.source import Source, is_image, readable

__all__ = ["Arrays", "Folder", "Manifest", "Parquet", "Source", "Tar", "Zip", "open_source", "open_sources", "sort_by"]

_LEAVES = "a link that leaves the dataset's folder, which is not followed; give --follow-links where you trust it"


class Folder(Source):
    """Every image file below a folder, by sorted relative path."""

    def __init__(self, path: Path, follow_links: bool = False) -> None:
        found = sorted(_walk(path.resolve(), follow_links), key=lambda entry: entry[0])
        self._files = [(file, reason) for _, file, reason in found]
        self.names = [name for name, _, _ in found]

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
        except (OSError, BadImage):  # some headers lie deeper than 64 KiB
            return super().size(position)

    def _file(self, position: int) -> Path:
        file, reason = self._files[self._at(position)]
        if reason:
            raise BadImage(f"{self.names[position]}: {reason}")
        return file

    def _unreadable(self, position: int, error: OSError) -> BadImage:
        remedy = "it was there when the run began" if isinstance(error, FileNotFoundError) else "check its permissions"
        return BadImage(f"{self.names[position]}: cannot be read ({error.strerror}); {remedy}")


def _bytes_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # it vanished, or is a link to nothing: reading it will say so
        return 0


def _walk(root: Path, follow_links: bool) -> Iterator[tuple[str, Path, str]]:
    """(name, file, why it cannot be read or "") of what is, or may hold, an image below a folder. `root` is resolved.

    Raises DataError where the folder itself cannot be listed.
    """
    seen = set()
    waiting = [("", root)]
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
            yield readable(prefix), folder, f"a folder that cannot be listed ({error.strerror}); check its permissions"
            continue
        for entry in entries:
            name, file = prefix + entry.name, folder / entry.name
            mode, inside = _kind(entry, root)
            reason = "" if inside or follow_links else _LEAVES
            if stat.S_ISDIR(mode):
                if reason:
                    yield readable(name), file, reason
                elif not (entry.is_symlink() and inside):  # else its images stand under their own names
                    waiting.append((f"{name}/", file))
            elif is_image(entry.name):
                yield readable(name), file, reason or ("" if stat.S_ISREG(mode) else "leads to no file; remove it")


def _kind(entry: os.DirEntry[str], root: Path) -> tuple[int, bool]:
    """Folder, file or 0, of an entry or of what it links to, and whether that lies below `root`."""
    if not entry.is_symlink():
        folder, file = entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False)
        return stat.S_IFDIR if folder else stat.S_IFREG if file else 0, True
    try:
        return stat.S_IFMT(entry.stat().st_mode), Path(entry.path).resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # links to nothing, or in a circle, for which pathlib had a RuntimeError
        return 0, True


class Manifest(Source):
    """Images that a CSV lists: crops of photos inside installed wheels, and files beside it; every one hash-checked.

    Columns: name, source (`wheel:package/path` or `file:path`), box (left,top,right,bottom or empty), sha256 of the
    RGB pixels, licence, credit.
    """

    def __init__(self, path: Path) -> None:
        try:
            with path.open(newline="", encoding="utf-8") as file:
                self._rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path} is not a readable manifest ({error})") from error
        if any(row.get(key) is None for row in self._rows for key in ("name", "source", "box", "sha256")):
            raise DataError(f"{path}: every row must give name, source, box and sha256")
        for row in self._rows:
            inside = PurePosixPath(row["source"].partition(":")[2])
            if inside.is_absolute() or ".." in inside.parts:
                raise DataError(f"{path}: {row['source']} leads out of its folder")
            if row["box"] and not re.fullmatch(r"\d{1,6}(,\d{1,6}){3}", row["box"], re.ASCII):
                raise DataError(f"{path}: the box {row['box']!r} must be left,top,right,bottom")
        self.names = [readable(row["name"]) for row in self._rows]
        if len(set(self.names)) < len(self.names):
            raise DataError(f"{path}: two rows have the same name")
        self._folder = path.parent
        self._held: tuple[str, Image.Image] | None = None
        self._lock = threading.Lock()

    def _locate(self, source: str, name: str) -> Path:
        kind, _, inside = source.partition(":")
        places = [self._folder] if kind == "file" else [Path(entry) for entry in sys.path if entry]
        for place in places:
            if (place / inside).is_file():
                return place / inside
        package = inside.split("/")[0]
        remedy = f"install the package that ships {package}/" if kind == "wheel" else "restore the dataset's folder"
        raise BadImage(f"{name}: {inside} is not here; {remedy}")

    def read(self, position: int) -> bytes:
        row = self._rows[self._at(position)]
        file = self._locate(row["source"], row["name"])
        try:
            refuse_large(file.stat().st_size, row["name"])
            return file.read_bytes()
        except OSError as error:
            raise BadImage(f"{row['name']}: {row['source']} cannot be read ({error.strerror})") from error

    def open(self, position: int) -> Image.Image:
        row = self._rows[self._at(position)]
        if row["box"]:
            with self._lock:  # neighbouring crops share a photo, which one thread decodes for all
                held = self._held
                if held is None or held[0] != row["source"]:
                    held = self._held = (row["source"], super().open(position))
            whole = held[1]
            left, top, right, bottom = (int(edge) for edge in row["box"].split(","))
            if not (left < right <= whole.width and top < bottom <= whole.height):
                raise BadImage(f"{row['name']}: its box {row['box']} is not inside {row['source']}, which was changed")
            image = whole.crop((left, top, right, bottom))
        else:
            image = super().open(position)
        if hashlib.sha256(np.asarray(image).tobytes()).hexdigest() != row["sha256"]:
            raise BadImage(f"{row['name']}: its pixels are not those of the manifest ({row['source']} was changed)")
        return image

    def size(self, position: int) -> tuple[int, int]:
        return self.open(position).size

    def listing(self) -> list[tuple[str, int]]:
        return [(row["sha256"], 0) for row in self._rows]


def open_source(path: Path, *, follow_links: bool = False) -> Source:
    """The source that a path is: folder, zip, tar, npz or Parquet file. Raises DataError for anything else."""
    return open_sources([path], follow_links=follow_links)


def open_sources(paths: Sequence[Path], *, follow_links: bool = False) -> Source:
    """One source over several paths (Parquet shards), or over one path of any form."""
    first = paths[0]
    if all(path.suffix == ".parquet" for path in paths):
        return Parquet(paths)
    if len(paths) > 1:
        raise DataError(f"several files of which not all are Parquet: {', '.join(path.name for path in paths[:5])}")
    if first.is_dir():
        shards = sorted(first.glob("*.parquet"))
        folder = Folder(first, follow_links)
        return Parquet(shards) if shards and not any(map(is_image, folder.names)) else folder
    if first.exists() and not first.is_file():  # a pipe would be waited for
        raise DataError(f"{first} is neither a folder nor a file")
    if first.suffix.lower() == ".zip":
        return Zip(first)
    if first.suffix.lower() == ".npz":
        return Arrays(first)
    if first.name.lower().endswith(archives.SUFFIXES):
        return Tar(first)
    if first.is_file():
        raise DataError(f"{first} is neither a folder nor a zip, tar, npz or Parquet file")
    raise DataError(f"no such file or folder: {first}")


def sort_by(source: Source, pattern: str) -> None:
    """Order a source by the first group of a regular expression in its names; digits sort as numbers."""
    keys = []
    for name in source.names:
        match = re.search(pattern, name)
        if match is None:
            raise DataError(f"{name}: its name does not match the dataset's order rule {pattern!r}")
        key = match.group(1)
        number = key.isdecimal() and len(key) <= 100  # Python refuses to convert thousands of digits
        keys.append((0, int(key), "") if number else (1, 0, key))
    source.reorder(sorted(range(len(keys)), key=keys.__getitem__))
