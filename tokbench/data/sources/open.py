"""Where images come from: folder, zip, tar, array, Parquet files, manifest. Names in order, read by position.

What cannot be read stops nothing: it keeps its place among the names, and reading it raises BadImage. What makes a
dataset ambiguous, or was made to harm, is refused as a whole, with a DataError:

    folders    links that leave the folder are bad images unless they are followed (`follow_links`); links to a folder
               inside it are not descended, since its images stand under their own names; no folder is read twice
    mixtures   images beside Parquet files, archives or arrays of images, files of images of several kinds, Parquet
               files in several folders: refused, with the ways to give each of them alone. So are pictures beside
               data sets that are not read (`tokbench.data.sources.unread`)
    missing    Parquet files that say "of 4" in their names where one of the 4 is not there: refused
    splits     images, or Parquet files, of several splits (train, validation, test): refused unless one is asked for
    hidden     what lies in or is a hidden or service entry (.ipynb_checkpoints, @eaDir, __MACOSX) is no part of a
               folder, zip or tar; the folder itself may be hidden
    left out   files that look like images and are not read (.heic, or a picture without a suffix) are counted
    archives   a name that climbs out (.., /, a drive, a backslash) or comes twice: the archive is refused; only
               regular files are read, a link or device with an image's name is a bad image; a cut-off tar is refused
    arrays     arr_0 of an .npz, uint8 (N, H, W, 3), called by their places; anything else is refused
    Parquet    a path that comes twice gets its row behind it, a row without one is called by its number
    names      in the order of their code points, so that no file system decides it; case matters; bytes that are not
               UTF-8, and control characters, are shown escaped
    sizes      nothing over decode.MAX_BYTES is read into memory, whatever it claims

Any number of threads may read and decode at once: where a file handle is shared, its bytes are read under a lock.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path, PurePosixPath

from tokbench.data import splits
from tokbench.data.sources import archive
from tokbench.data.sources.archive import Tar, Zip
from tokbench.data.sources.base import Source, is_hidden, printable_name
from tokbench.data.sources.folder import Folder, Found, count_kinds, kind_of, look, look_at
from tokbench.data.sources.npz import NpzSource
from tokbench.data.sources.parquet import Parquet
from tokbench.data.sources.shard_names import refuse_missing
from tokbench.data.sources.unread import UNREAD
from tokbench.errors import DataError, UsageError
from tokbench.io.left_out import describe_left_out


def open_source(
    data: str | Path, *, follow_links: bool = False, split: str | None = None, mixed: bool = False
) -> Source:
    """The images that a path is (folder, zip, tar, npz or Parquet file), or all that a pattern of paths matches.

    split: the only one to take (`tokbench.data.splits`). mixed: whether several are taken together; else they are
    refused unless one is asked for. Raises DataError for anything else and what is ambiguous (above), UsageError where
    a pattern matches nothing, or there is no such split.
    """
    where, path = str(data), Path(data).expanduser()
    if path.is_dir():
        return _of_folder(_Asked(where, where.rstrip("/") or "/", split, mixed), look(path, follow_links))
    if path.exists() or not is_pattern(where):
        return _of_file(_Asked(where, None, split, mixed), path)
    root = folder_of(where)
    if not root.is_dir():
        raise UsageError(f"no file matches {where}: there is no folder {root}")
    rest = str(path.relative_to(root))
    matches = [name.replace(os.sep, "/").rstrip("/") for name in glob(rest, root_dir=root, recursive=True)]
    found = look_at(root, sorted(filter(None, matches)), follow_links)
    if not found.images and not found.packed:
        there = sorted(name for name in os.listdir(root) if not is_hidden(name))
        listed = ", ".join(map(printable_name, there[:5])) + (f" and {len(there) - 5:,} more" if len(there) > 5 else "")
        left = f"; {describe_left_out(Folder(found).left_out)}" if found.passed else ""
        raise UsageError(f"no image or file of images matches {where}{left}; {root} holds {listed or 'nothing'}")
    return _of_folder(_Asked(where, str(root), split, mixed), found, pattern=True)


def open_sources(paths: Sequence[Path], *, follow_links: bool = False) -> Source:
    """One source over several paths (Parquet shards), or over one path of any form, whatever splits it holds."""
    if all(path.suffix == ".parquet" for path in paths):
        return Parquet(paths)
    if len(paths) > 1:
        raise DataError(f"several files of which not all are Parquet: {', '.join(path.name for path in paths[:5])}")
    return open_source(paths[0], follow_links=follow_links, mixed=True)


def is_path(data: str) -> bool:
    """Whether what names a data set is a path that exists, or a pattern of paths, and not its name."""
    return Path(data).expanduser().exists() or is_pattern(data)


def is_pattern(data: str) -> bool:
    """Whether a path that does not exist is a pattern, as in `folder/train-*.parquet`."""
    return any(sign in data for sign in "*?[")


def folder_of(data: str) -> Path:
    """The path itself where it exists; of a pattern, the folder below which it may match."""
    path = Path(data).expanduser()
    if path.exists():
        return path
    return Path(*itertools.takewhile(lambda part: not is_pattern(part), path.parts))


@dataclass(frozen=True)
class _Asked:
    """What was asked for: the path or pattern as it was given, the folder that messages lead on from (None: a file),
    the split, and whether splits may be mixed."""

    where: str
    root: str | None
    split: str | None
    mixed: bool


def _of_file(asked: _Asked, path: Path) -> Source:
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise DataError(f"{path} is neither a folder nor a file")
    if path.suffix == ".parquet":
        return Parquet([file for _, file in _of_split(asked, [(path.name, path)])])
    if path.suffix.lower() == ".npz":
        if asked.split:
            raise UsageError(f"{path} is an array of images, which has no splits; leave --split out")
        return NpzSource(path)
    if path.suffix.lower() == ".zip":
        return _one_split(asked, Zip(path))
    if path.name.lower().endswith(archive.SUFFIXES):
        return _one_split(asked, Tar(path))
    if path.is_file():
        raise DataError(f"{path} is neither a folder nor a zip, tar, npz or Parquet file")
    raise DataError(f"no such file or folder: {path}")


def _of_folder(asked: _Asked, found: Found, pattern: bool = False) -> Source:
    """What was found as one source. Raises DataError where it could be several."""
    pictures, parquet_alone = found.pictures, all(kind_of(name) == ".parquet" for name, _ in found.pack)
    packed = found.holders() if pictures or not parquet_alone else found.pack
    kinds = {kind_of(name) for name, _ in packed}
    if pictures and packed:
        raise DataError(_both(asked, pictures, [name for name, _ in packed]))
    if not packed:
        return _one_split(asked, Folder(found))
    if kinds == {".parquet"}:
        shards = _of_split(asked, packed)
        if not pattern:
            _refuse_several_folders(asked, [name for name, _ in shards])
        refuse_missing(asked.where, asked.root, [name for name, _ in shards], asked.where if pattern else None)
        source = Parquet([file for _, file in shards])
        source.passed = found.passed
        return source
    unread = kinds <= {".arrow", *UNREAD}
    if pattern and len(packed) == 1 and not unread:
        return _of_file(replace(asked, root=None), packed[0][1])
    held = f"{asked.where} holds no images itself, but {' and '.join(count_kinds(name for name, _ in packed))}"
    if unread:
        raise DataError(f"{held}, which are not read; {_REWRITE}")
    one = shlex.quote(f"{asked.root}/{next(name for name, _ in packed if kind_of(name) != '.arrow')}")
    raise DataError(f"{held}, which are not read as one data set; give one of them: --data {one}")


def _of_split(asked: _Asked, shards: list[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """The Parquet files of the one split that there is or that was asked for."""
    if asked.mixed:
        return shards
    parts = splits.of_shards([name for name, _ in shards])
    return [shards[at] for at in splits.choose(asked.where, parts, asked.split, "Parquet file", asked.root)]


def _one_split(asked: _Asked, source: Folder | Zip | Tar) -> Source:
    """The source, with the images alone of the one split that there is or that was asked for."""
    if asked.mixed or not source.names:
        return source
    parts = splits.of_images([*source.names, *source.passed])
    own, others = parts[: len(source.names)], parts[len(source.names) :]
    chosen = splits.choose(asked.where, own, asked.split, "image", asked.root)
    if asked.split:
        source.reorder(chosen)
        split = splits.known(asked.split)
        source.passed = [n for n, part in zip(source.passed, others, strict=True) if part and part.split == split]
    return source


def _both(asked: _Asked, pictures: Sequence[str], packed: Sequence[str]) -> str:
    """That images lie beside files of images, and how to give either alone."""
    several = len(pictures) > 1
    counted = f"{len(pictures):,} picture{'s' if several else ''} ({pictures[0]}{', ...' if several else ''})"
    held = f"{asked.where} holds {counted} beside {' and '.join(count_kinds(packed))}"
    apart = f"for the pictures {_of_pictures(asked, pictures, packed)}"
    read = [name for name in packed if kind_of(name) not in (".arrow", *UNREAD)]
    if not read:
        return f"{held}, which are not read: pictures beside them may be samples. {_REWRITE}, or give {apart}"
    parents = {os.path.dirname(name) for name in read}
    file = read[0]
    if len({kind_of(name) for name in read}) == 1 and kind_of(file) == ".parquet":
        file = os.path.join(next(iter(parents)) if len(parents) == 1 else "**", "*.parquet")
    return f"{held}; give one of them: --data {shlex.quote(f'{asked.root}/{file}')}, or {apart}"


_REWRITE = "write them as Parquet (to_parquet of the library datasets), zip or tar"


def _of_pictures(asked: _Asked, pictures: Sequence[str], packed: Sequence[str]) -> str:
    """What gives the pictures alone: their folder where nothing else lies there, else a pattern of their suffix."""
    folder = os.path.commonpath([os.path.dirname(name) for name in pictures])
    if folder and not any(name.startswith(f"{folder}/") for name in packed):
        return f"--data {shlex.quote(f'{asked.root}/{folder}')}"
    suffixes = {PurePosixPath(name).suffix for name in pictures}
    if len(suffixes) > 1:
        return "a folder or pattern of those alone"
    deep = "*" if all(os.path.dirname(name) == folder for name in pictures) else "**/*"
    return f"--data {shlex.quote('/'.join(filter(None, (asked.root, folder, deep + suffixes.pop()))))}"


def _refuse_several_folders(asked: _Asked, names: Sequence[str]) -> None:
    """Raises DataError where Parquet files lie in several folders: nothing says that they are one data set."""
    counts = Counter(os.path.dirname(name) for name in names)
    if len(counts) > 1:
        listed = ", ".join(f"{folder or '.'}: {count:,}" for folder, count in sorted(counts.items())[:8])
        one, every = (shlex.quote(f"{asked.root}/{part}*.parquet") for part in (f"{max(counts)}/", "**/"))
        raise DataError(
            f"{asked.where} holds Parquet files in {len(counts):,} folders ({listed}); give those of one, "
            f"--data {one}, or all of them, --data {every}"
        )


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
