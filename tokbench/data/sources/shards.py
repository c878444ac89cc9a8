"""Images of several archives or arrays as one source."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from tokbench.data.sources.base import MAX_IMAGES, Source
from tokbench.errors import DataError

_RESERVED = 256
"""Number of open files that the rest of the process may need."""


class Shards(Source):
    """The images of several files, each opened as a source of its own, in the order of the files.

    If two files contain images of the same name, all names begin with the name of their file. The constructor raises
    DataError if a file cannot be opened.
    """

    def __init__(self, files: Sequence[tuple[str, Path]], open_one: Callable[[Path], Source]) -> None:
        _allow_open_files(len(files))
        self._sources, self._shards = [open_one(path) for _, path in files], [name for name, _ in files]
        self.has_columns = any(source.has_columns for source in self._sources)
        names = [name for source in self._sources for name in source.names]
        if len(names) > MAX_IMAGES:
            raise DataError(f"{len(files):,} files contain more than {MAX_IMAGES:,} images; give fewer of them")
        prefixed = len(set(names)) < len(names)
        self.names, self._starts = [], []
        for shard, source in zip(self._shards, self._sources, strict=True):
            self._starts.append(len(self.names))
            self.names += [f"{shard}/{name}" for name in source.names] if prefixed else source.names
        self.left_out_names = [name for source in self._sources for name in source.left_out_names]

    @property
    def inner_names(self) -> list[str]:
        located = (self._locate(position) for position in range(len(self.names)))
        return [source.names[inner] for source, inner in located]

    def read(self, position: int) -> bytes:
        source, inner = self._locate(position)
        return source.read(inner)

    def open(self, position: int) -> Image.Image:
        source, inner = self._locate(position)
        return source.open(inner)

    def size(self, position: int) -> tuple[int, int]:
        source, inner = self._locate(position)
        return source.size(inner)

    def class_list(self, folder: str) -> bytes | None:
        found = (source.class_list(folder) for source in self._sources)
        return next((content for content in found if content is not None), None)

    def listing(self) -> list[tuple[str, int]]:
        return [entry for source in self._sources for entry in source.listing()]

    def _locate(self, position: int) -> tuple[Source, int]:
        row = self._at(position)
        shard = bisect_right(self._starts, row) - 1
        return self._sources[shard], row - self._starts[shard]


def _allow_open_files(count: int) -> None:
    """Raise the process's limit of open files, if necessary and allowed, because every shard stays open."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + _RESERVED
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise DataError(f"{count:,} files are more than this system lets a process open ({hard:,}); give fewer of them")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
