"""Images whose paths are listed in a text file, one per line."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from tokbench.data.decode import refuse_large
from tokbench.data.sources.base import MAX_IMAGES, Source, is_image, printable_name
from tokbench.errors import DataError, UnreadableImage
from tokbench.io.counts import count_of

_MAX_BYTES = 1 << 30
"""Limit on the bytes of the list."""


class PathList(Source):
    """The images listed in a text file (UTF-8), in the order of its lines.

    Paths are absolute or relative to the folder of the list; a class number after a path, as in Caffe's lists, is
    ignored. If all paths are below the folder of the list, they are the names of the images; otherwise, names are
    relative to the folder that contains all images. A file that does not exist is an unreadable image.

    The constructor raises DataError if the list is empty or cannot be read, if a path is listed twice or is not that of
    an image, or if none of the files exists.
    """

    def __init__(self, path: Path) -> None:
        self._list, folder = path, path.resolve().parent
        entries = _entries(path, folder)
        self._files = [Path(os.path.normpath(folder / entry)) for entry in entries]
        if repeated := _repeated(self._files):
            raise DataError(f"{path} lists {repeated} twice; keep one of the lines")
        if wrong := [entry for entry in entries if not is_image(PurePosixPath(entry).name)]:
            raise DataError(
                f"{path}: {printable_name(wrong[0][:200])!r} is not the path of an image; a list has one path per line"
            )
        if not any(map(os.path.exists, self._files)):
            raise DataError(
                f"{path} lists {count_of(len(entries), 'file')} but none exists, for example {self._files[0]}; paths "
                "must be absolute or relative to the folder of the list"
            )
        base = folder if all(file.is_relative_to(folder) for file in self._files) else None
        root = base or Path(os.path.commonpath([file.parent for file in self._files]))
        self.names = [printable_name(file.relative_to(root).as_posix()) for file in self._files]

    def read(self, position: int) -> bytes:
        file, name = self._files[self._at(position)], self.names[position]
        try:
            if not file.is_file():
                raise UnreadableImage(f"{name}: {self._list} lists it, but there is no such file; correct the list")
            refuse_large(file.stat().st_size, name)
            return file.read_bytes()
        except OSError as error:
            raise UnreadableImage(f"{name}: cannot be read ({error.strerror}); check its permissions") from error

    def listing(self) -> list[tuple[str, int]]:
        sizes = [file.stat().st_size if file.is_file() else 0 for file in self._files]
        return [(name, sizes[self._at(position)]) for position, name in enumerate(self.names)]


def _entries(path: Path, folder: Path) -> list[str]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path} has more than {_MAX_BYTES:,} bytes, the limit for a list of paths")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a readable list of paths ({error})") from error
    entries = [line.strip() for line in lines if line.strip()]
    if not entries:
        raise DataError(f"{path} is empty; it must list the path of one image per line")
    if len(entries) > MAX_IMAGES:
        raise DataError(f"{path} lists more than {MAX_IMAGES:,} files; split it")
    if "\\" in entries[0] and not (folder / entries[0]).exists():
        entries = [entry.replace("\\", "/") for entry in entries]
    numbered = [re.fullmatch(r"(.*\S)\s+\d+", entry) for entry in entries]
    if all(numbered) and not is_image(PurePosixPath(entries[0]).name):
        entries = [match[1] for match in numbered if match]
    return entries


def _repeated(files: list[Path]) -> Path | None:
    seen: set[Path] = set()
    for file in files:
        if file in seen:
            return file
        seen.add(file)
    return None
