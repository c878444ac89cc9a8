"""Opens sources of images: folders, zips, tars, arrays, Parquet and Arrow files, lists of paths, and several of them.

An image that cannot be read does not stop a run: it keeps its position, and reading it raises UnreadableImage. A
dataset that is ambiguous or unsafe is refused as a whole, with a DataError:

    folders    links that leave the folder are unreadable images unless `follow_links` is given; links to a folder
               inside the folder are not descended, because its images are listed under their own names; no folder is
               read twice
    shards     tars, Parquet or Arrow files in one folder are read as one dataset; zips and arrays only if a pattern
               names them, because several of them may be different datasets
    mixtures   images beside files of images, files of several kinds, and shards in several folders are refused, and the
               message states how to select each of them. Images beside datasets in unsupported formats are refused as
               well (`tokbench.data.sources.unread`)
    missing    shards whose names state a total ("of 4") are refused if one of them is missing, and so are files that
               the braces of a pattern list
    splits     images or shards of several splits (train, validation, test) are refused unless one is requested
    hidden     hidden and system entries (.ipynb_checkpoints, @eaDir, __MACOSX) and files in them do not belong to a
               folder, zip or tar; the folder itself may be hidden
    left out   files that look like images but are not read (.heic without pillow-heif, or images without a suffix) are
               counted
    archives   an archive is refused if a member's name leads outside (.., /, a drive) or is repeated; only regular
               files are read, and links and devices with an image's name are unreadable images; a truncated tar is
               refused. Backslashes in the names of zips, which Windows writes, separate folders
    arrays     an .npz or .npy must contain images, uint8 (N, H, W, C), (N, C, H, W) or (N, H, W), named by position
    tables     repeated paths are extended by the row number, and rows without a path are named by the row number
    columns    the only column (or array) of images is used; several are refused unless one is requested
    lists      a text file lists one path per line, and its order is kept
    names      images are sorted by the code points of their names, independently of the file system; case matters;
               bytes that are not UTF-8 and control characters are escaped
    sizes      files over decode.MAX_BYTES are never read into memory, whatever size they claim

Any number of threads may read and decode at the same time. Shared file handles are protected by locks.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from tokbench.data import splits
from tokbench.data.reading import DEFAULTS, ReadOptions
from tokbench.data.sources import archive
from tokbench.data.sources.archive import Tar, Zip
from tokbench.data.sources.arrow import Arrow
from tokbench.data.sources.base import Source
from tokbench.data.sources.folder import KINDS, Folder, FolderListing, count_kinds, kind_of, list_folder
from tokbench.data.sources.npz import NpzSource
from tokbench.data.sources.parquet import Parquet
from tokbench.data.sources.path_list import PathList
from tokbench.data.sources.patterns import is_pattern, list_pattern
from tokbench.data.sources.shard_names import refuse_missing
from tokbench.data.sources.shards import Shards
from tokbench.data.sources.table import Table
from tokbench.data.sources.unread import UNREAD
from tokbench.errors import DataError, UsageError


def open_source(data: str | Path, reading: ReadOptions = DEFAULTS, *, mixed: bool = False) -> Source:
    """Return the images of a path, or all images that a pattern matches.

    data: a folder, a file of images (zip, tar, Parquet, Arrow, npz, npy), a text file that lists paths, or a pattern
    with wildcards or braces, such as `shard-{0000..0009}.tar`. mixed: whether several splits are read together;
    otherwise several splits are refused unless `reading.split` selects one.

    Raises DataError for other files and for ambiguous or unsafe data (see above), and UsageError if a pattern matches
    nothing, or if there is no such split or column.
    """
    where, path = str(data), Path(data).expanduser()
    if path.is_dir():
        request = _Request(where, where.rstrip("/") or "/", reading.split, reading.column, mixed)
        source = _open_listing(request, list_folder(path, reading.follow_links))
    elif path.exists() or not is_pattern(where):
        source = _open_file(_Request(where, None, reading.split, reading.column, mixed), path)
    else:
        root, listing = list_pattern(where, reading.follow_links)
        request = _Request(where, str(root), reading.split, reading.column, mixed)
        source = _open_listing(request, listing, pattern=True)
    if reading.column and not source.has_columns:
        raise UsageError(
            f"--column selects a column of Parquet or Arrow files, or an array of an .npz file; {where} has none"
        )
    return source


def open_sources(paths: Sequence[Path], reading: ReadOptions = DEFAULTS) -> Source:
    """Return one source for several Parquet files, or for one path of any form. Splits are not separated.

    Raises DataError if several paths are given and not all are Parquet files.
    """
    if all(path.suffix == ".parquet" for path in paths):
        return Parquet(paths)
    if len(paths) > 1:
        raise DataError(f"several files, not all of them Parquet: {', '.join(path.name for path in paths[:5])}")
    return open_source(paths[0], reading, mixed=True)


@dataclass(frozen=True)
class _Request:
    """The arguments of `open_source`.

    where: the given path or pattern. root: the folder that paths in messages begin with; None for a file. split: the
    requested split. column: the requested column. mixed: whether several splits are read together.
    """

    where: str
    root: str | None
    split: str | None
    column: str | None
    mixed: bool


def _open_file(request: _Request, path: Path) -> Source:
    if path.exists() and not path.is_file():  # opening a pipe would block
        raise DataError(f"{path} is neither a folder nor a regular file")
    if (kind := kind_of(path.name)) in _TABLES and path.exists():
        shards = _select_shards(request, [(path.name, path)], KINDS[kind][0])
        return _TABLES[kind]([file for _, file in shards], request.column)
    if path.suffix.lower() in (".npz", ".npy") and path.exists():
        if request.split:
            raise UsageError(f"{path} is an array of images, which has no splits; omit --split")
        return NpzSource(path, request.column)
    if path.suffix.lower() in _LISTS and path.exists():
        return _select_split(request, PathList(path))
    if kind == ".zip" and path.exists():
        return _select_split(request, Zip(path))
    if kind in archive.SUFFIXES and path.exists():
        return _select_split(request, Tar(path))
    if path.is_file():
        raise DataError(
            f"{path} is neither a folder nor a zip, tar, Parquet, Arrow or npz file, nor a .txt list of paths"
        )
    raise DataError(f"no such file or folder: {path}")


_TABLES: dict[str, type[Table]] = {".parquet": Parquet, ".arrow": Arrow}
_LISTS = (".txt", ".lst", ".flist")
"""Suffixes of text files that list paths of images."""


def _open_listing(request: _Request, listing: FolderListing, pattern: bool = False) -> Source:
    """Return a source for the listed files. Raises DataError if they could be several datasets."""
    pictures, only_tables = listing.pictures, all(kind_of(name) == ".parquet" for name, _ in listing.candidates)
    packed = listing.packed_with_images() if pictures or not only_tables else listing.candidates
    if pictures and packed:
        raise DataError(_mixture_message(request, pictures, [name for name, _ in packed]))
    if not packed:
        return _select_split(request, Folder(listing))
    nouns = {KINDS[kind_of(name) or ""][0] for name, _ in packed}
    content = f"{request.where} contains no images itself, but {' and '.join(count_kinds(name for name, _ in packed))}"
    if all(kind_of(name) in UNREAD for name, _ in packed):
        raise DataError(f"{content}, which are not read; {_REWRITE}")
    if len(nouns) == 1 and (pattern or len(packed) == 1 or nouns <= _TOGETHER):
        return _open_packed(request, listing, packed, nouns.pop(), pattern)
    names = [name for name, _ in packed if kind_of(name) not in UNREAD]
    one = shlex.quote(f"{request.root}/{names[0]}")
    every = f", or all of them: --data {_files_remedy(request, names)}" if len(nouns) == 1 else ""
    if len(nouns) > 1:
        one = _files_remedy(request, [name for name in names if kind_of(name) == kind_of(names[0])])
    raise DataError(f"{content}, which are not read as one dataset; give one of them: --data {one}{every}")


_TOGETHER = {"Parquet file", "Arrow file", "tar file"}
"""The kinds of files that are shards of one dataset if they are in one folder. Several zip or npz files in a folder can
be different datasets, so they are read together only if a pattern names them."""


def _open_packed(
    request: _Request, listing: FolderListing, packed: list[tuple[str, Path]], noun: str, pattern: bool
) -> Source:
    """Return one source for files of one kind, which contain images."""
    kind = kind_of(packed[0][0]) or ""
    if len(packed) == 1 and kind not in _TABLES:
        refuse_missing(request.where, request.root, [packed[0][0]], request.where if pattern else None)
        source = _open_file(replace(request, root=None), packed[0][1])
        source.left_out_names = [*source.left_out_names, *listing.left_out]
        return source
    by_name = kind in _TABLES or any(splits.splits_of_shards([name for name, _ in packed]))
    shards = _select_shards(request, packed, noun) if by_name else packed
    names = [name for name, _ in shards]
    if not pattern:
        _refuse_several_folders(request, names, noun)
    refuse_missing(request.where, request.root, names, request.where if pattern else None)
    if kind in _TABLES:
        source = _TABLES[kind]([file for _, file in shards], request.column)
    else:
        alone = replace(request, root=None, split=None, mixed=True)
        source = Shards(shards, lambda path: _open_file(alone, path))
        source = source if by_name else _select_split(replace(request, root=None), source)
    source.left_out_names = [*source.left_out_names, *listing.left_out]
    return source


def _select_shards(request: _Request, shards: list[tuple[str, Path]], noun: str) -> list[tuple[str, Path]]:
    """Return the files of the requested split, or all of them if there is only one split."""
    if request.mixed:
        return shards
    parts = splits.splits_of_shards([name for name, _ in shards])
    return [shards[i] for i in splits.choose(request.where, parts, request.split, noun, request.root)]


def _select_split(request: _Request, source: Source) -> Source:
    """Return the source, reduced to the images of the requested split. Raises DataError if the choice is ambiguous."""
    if request.mixed or not source.names:
        return source
    parts = splits.splits_of_images([*source.names, *source.left_out_names])
    image_parts, left_out_parts = parts[: len(source.names)], parts[len(source.names) :]
    positions = splits.choose(request.where, image_parts, request.split, "image", request.root)
    if request.split:
        source.reorder(positions)
        split = splits.canonical_split(request.split)
        left_out = zip(source.left_out_names, left_out_parts, strict=True)
        source.left_out_names = [name for name, part in left_out if part and part.split == split]
    return source


def _mixture_message(request: _Request, pictures: Sequence[str], packed: Sequence[str]) -> str:
    """Return the error message for images beside packed files, which states how to select either of them."""
    several = len(pictures) > 1
    counted = f"{len(pictures):,} picture{'s' if several else ''} ({pictures[0]}{', ...' if several else ''})"
    content = f"{request.where} contains {counted} beside {' and '.join(count_kinds(packed))}"
    alternative = f"for the pictures {_pictures_remedy(request, pictures, packed)}"
    supported = [name for name in packed if kind_of(name) not in UNREAD]
    if not supported:
        return f"{content}, which are not read: pictures beside them may be samples. {_REWRITE}, or give {alternative}"
    same = [name for name in supported if kind_of(name) == kind_of(supported[0])]
    return f"{content}; give one of them: --data {_files_remedy(request, same)}, or {alternative}"


_REWRITE = "write them as Parquet (to_parquet of the library datasets), zip or tar"


def _files_remedy(request: _Request, names: Sequence[str]) -> str:
    """Return the quoted path or pattern that selects files of one kind."""
    file = names[0]
    if len(names) > 1 or kind_of(file) == ".parquet":
        parents = {os.path.dirname(name) for name in names}
        file = os.path.join(next(iter(parents)) if len(parents) == 1 else "**", f"*{kind_of(file)}")
    return shlex.quote(f"{request.root}/{file}")


def _pictures_remedy(request: _Request, pictures: Sequence[str], packed: Sequence[str]) -> str:
    """Return how to select the pictures: by their folder if it contains nothing else, or by a pattern of the suffix."""
    folder = os.path.commonpath([os.path.dirname(name) for name in pictures])
    if folder and not any(name.startswith(f"{folder}/") for name in packed):
        return f"--data {shlex.quote(f'{request.root}/{folder}')}"
    suffixes = {PurePosixPath(name).suffix for name in pictures}
    if len(suffixes) > 1:
        return "a folder or pattern that contains only them"
    wildcard = "*" if all(os.path.dirname(name) == folder for name in pictures) else "**/*"
    return f"--data {shlex.quote('/'.join(filter(None, (request.root, folder, wildcard + suffixes.pop()))))}"


def _refuse_several_folders(request: _Request, names: Sequence[str], noun: str) -> None:
    """Raise DataError if files of images are in several folders, because they may be different datasets."""
    counts = Counter(os.path.dirname(name) for name in names)
    if len(counts) > 1:
        listed = ", ".join(f"{folder or '.'}: {count:,}" for folder, count in sorted(counts.items())[:8])
        files = f"*{kind_of(names[0])}"
        one, every = (shlex.quote(f"{request.root}/{part}{files}") for part in (f"{max(counts)}/", "**/"))
        raise DataError(
            f"{request.where} contains {noun}s in {len(counts):,} folders ({listed}); give those of one folder, "
            f"--data {one}, or all of them, --data {every}"
        )


def sort_by(source: Source, pattern: str) -> None:
    """Sort a source by the first group of a regular expression in its names. Digits are compared as numbers.

    Raises DataError if a name does not match.
    """
    keys = []
    for name in source.names:
        match = re.search(pattern, name)
        if match is None:
            raise DataError(f"{name}: its name does not match the dataset's order rule {pattern!r}")
        key = match.group(1)
        number = key.isdecimal() and len(key) <= 100  # Python does not convert thousands of digits
        keys.append((0, int(key), "") if number else (1, 0, key))
    source.reorder(sorted(range(len(keys)), key=keys.__getitem__))
