"""Opens sources of images: folders, zips, tars, arrays and Parquet files.

An image that cannot be read does not stop a run: it keeps its position, and reading it raises UnreadableImage. A
dataset that is ambiguous or unsafe is refused as a whole, with a DataError:

    folders    links that leave the folder are unreadable images unless `follow_links` is given; links to a folder
               inside the folder are not descended, because its images are listed under their own names; no folder is
               read twice
    mixtures   images beside Parquet files, archives or arrays of images, packed files of several kinds, and Parquet
               files in several folders are refused, and the message states how to select each of them. Images beside
               datasets in unsupported formats are refused as well (`tokbench.data.sources.unread`)
    missing    Parquet files whose names state a total ("of 4") are refused if one of them is missing
    splits     images or Parquet files of several splits (train, validation, test) are refused unless one is requested
    hidden     hidden and system entries (.ipynb_checkpoints, @eaDir, __MACOSX) and files in them do not belong to a
               folder, zip or tar; the folder itself may be hidden
    left out   files that look like images but are not read (.heic, or images without a suffix) are counted
    archives   an archive is refused if a member's name leads outside (.., /, a drive, a backslash) or is repeated; only
               regular files are read, and links and devices with an image's name are unreadable images; a truncated tar
               is refused
    arrays     an .npz must contain arr_0, uint8 (N, H, W, 3); images are named by position
    Parquet    repeated paths are extended by the row number, and rows without a path are named by the row number
    names      images are sorted by the code points of their names, independently of the file system; case matters;
               bytes that are not UTF-8 and control characters are escaped
    sizes      files over decode.MAX_BYTES are never read into memory, whatever size they claim

Any number of threads may read and decode at the same time. Shared file handles are protected by locks.
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
from tokbench.data.sources.folder import Folder, FolderListing, count_kinds, kind_of, list_folder, list_paths
from tokbench.data.sources.npz import NpzSource
from tokbench.data.sources.parquet import Parquet
from tokbench.data.sources.shard_names import refuse_missing
from tokbench.data.sources.unread import UNREAD
from tokbench.errors import DataError, UsageError
from tokbench.io.left_out import describe_left_out


def open_source(
    data: str | Path, *, follow_links: bool = False, split: str | None = None, mixed: bool = False
) -> Source:
    """Return the images of a path (folder, zip, tar, npz or Parquet file), or all images that a glob pattern matches.

    split: the split to read (`tokbench.data.splits`). mixed: whether several splits are read together; otherwise
    several splits are refused unless one is requested.

    Raises DataError for other files and for ambiguous or unsafe data (see above), and UsageError if a pattern matches
    nothing or if there is no such split.
    """
    where, path = str(data), Path(data).expanduser()
    if path.is_dir():
        return _open_listing(_Request(where, where.rstrip("/") or "/", split, mixed), list_folder(path, follow_links))
    if path.exists() or not is_pattern(where):
        return _open_file(_Request(where, None, split, mixed), path)
    root = folder_of(where)
    if not root.is_dir():
        raise UsageError(f"no file matches {where}: there is no folder {root}")
    rest = str(path.relative_to(root))
    matches = [name.replace(os.sep, "/").rstrip("/") for name in glob(rest, root_dir=root, recursive=True)]
    listing = list_paths(root, sorted(filter(None, matches)), follow_links)
    if not listing.images and not listing.packed:
        names = sorted(name for name in os.listdir(root) if not is_hidden(name))
        content = ", ".join(map(printable_name, names[:5]))
        content += f" and {len(names) - 5:,} more" if len(names) > 5 else ""
        note = f"; {describe_left_out(Folder(listing).left_out)}" if listing.left_out else ""
        raise UsageError(f"no image or file of images matches {where}{note}; {root} contains {content or 'nothing'}")
    return _open_listing(_Request(where, str(root), split, mixed), listing, pattern=True)


def open_sources(paths: Sequence[Path], *, follow_links: bool = False) -> Source:
    """Return one source for several Parquet files, or for one path of any form. Splits are not separated.

    Raises DataError if several paths are given and not all are Parquet files.
    """
    if all(path.suffix == ".parquet" for path in paths):
        return Parquet(paths)
    if len(paths) > 1:
        raise DataError(f"several files, not all of them Parquet: {', '.join(path.name for path in paths[:5])}")
    return open_source(paths[0], follow_links=follow_links, mixed=True)


def is_path(data: str) -> bool:
    """Return whether `data` is an existing path or a glob pattern, and not the name of a dataset."""
    return Path(data).expanduser().exists() or is_pattern(data)


def is_pattern(data: str) -> bool:
    """Return whether a path that does not exist is a glob pattern, such as `folder/train-*.parquet`."""
    return any(character in data for character in "*?[")


def folder_of(data: str) -> Path:
    """Return the path itself if it exists, or the folder below which a pattern can match."""
    path = Path(data).expanduser()
    if path.exists():
        return path
    return Path(*itertools.takewhile(lambda part: not is_pattern(part), path.parts))


@dataclass(frozen=True)
class _Request:
    """The arguments of `open_source`.

    where: the given path or pattern. root: the folder that paths in messages begin with; None for a file. split: the
    requested split. mixed: whether several splits are read together.
    """

    where: str
    root: str | None
    split: str | None
    mixed: bool


def _open_file(request: _Request, path: Path) -> Source:
    if path.exists() and not path.is_file():  # opening a pipe would block
        raise DataError(f"{path} is neither a folder nor a regular file")
    if path.suffix == ".parquet":
        return Parquet([file for _, file in _select_shards(request, [(path.name, path)])])
    if path.suffix.lower() == ".npz":
        if request.split:
            raise UsageError(f"{path} is an array of images, which has no splits; omit --split")
        return NpzSource(path)
    if path.suffix.lower() == ".zip":
        return _select_split(request, Zip(path))
    if path.name.lower().endswith(archive.SUFFIXES):
        return _select_split(request, Tar(path))
    if path.is_file():
        raise DataError(f"{path} is neither a folder nor a zip, tar, npz or Parquet file")
    raise DataError(f"no such file or folder: {path}")


def _open_listing(request: _Request, listing: FolderListing, pattern: bool = False) -> Source:
    """Return a source for the listed files. Raises DataError if they could be several datasets."""
    pictures, only_parquet = listing.pictures, all(kind_of(name) == ".parquet" for name, _ in listing.candidates)
    packed = listing.packed_with_images() if pictures or not only_parquet else listing.candidates
    kinds = {kind_of(name) for name, _ in packed}
    if pictures and packed:
        raise DataError(_mixture_message(request, pictures, [name for name, _ in packed]))
    if not packed:
        return _select_split(request, Folder(listing))
    if kinds == {".parquet"}:
        shards = _select_shards(request, packed)
        if not pattern:
            _refuse_several_folders(request, [name for name, _ in shards])
        refuse_missing(request.where, request.root, [name for name, _ in shards], request.where if pattern else None)
        source = Parquet([file for _, file in shards])
        source.left_out_names = listing.left_out
        return source
    unread = kinds <= {".arrow", *UNREAD}
    if pattern and len(packed) == 1 and not unread:
        return _open_file(replace(request, root=None), packed[0][1])
    content = f"{request.where} contains no images itself, but {' and '.join(count_kinds(name for name, _ in packed))}"
    if unread:
        raise DataError(f"{content}, which are not read; {_REWRITE}")
    example = shlex.quote(f"{request.root}/{next(name for name, _ in packed if kind_of(name) != '.arrow')}")
    raise DataError(f"{content}, which are not read as one dataset; give one of them: --data {example}")


def _select_shards(request: _Request, shards: list[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """Return the Parquet files of the requested split, or all of them if there is only one split."""
    if request.mixed:
        return shards
    parts = splits.splits_of_shards([name for name, _ in shards])
    return [shards[i] for i in splits.choose(request.where, parts, request.split, "Parquet file", request.root)]


def _select_split(request: _Request, source: Folder | Zip | Tar) -> Source:
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
    supported = [name for name in packed if kind_of(name) not in (".arrow", *UNREAD)]
    if not supported:
        return f"{content}, which are not read: pictures beside them may be samples. {_REWRITE}, or give {alternative}"
    parents = {os.path.dirname(name) for name in supported}
    file = supported[0]
    if len({kind_of(name) for name in supported}) == 1 and kind_of(file) == ".parquet":
        file = os.path.join(next(iter(parents)) if len(parents) == 1 else "**", "*.parquet")
    return f"{content}; give one of them: --data {shlex.quote(f'{request.root}/{file}')}, or {alternative}"


_REWRITE = "write them as Parquet (to_parquet of the library datasets), zip or tar"


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


def _refuse_several_folders(request: _Request, names: Sequence[str]) -> None:
    """Raise DataError if Parquet files are in several folders, because they may be different datasets."""
    counts = Counter(os.path.dirname(name) for name in names)
    if len(counts) > 1:
        listed = ", ".join(f"{folder or '.'}: {count:,}" for folder, count in sorted(counts.items())[:8])
        one, every = (shlex.quote(f"{request.root}/{part}*.parquet") for part in (f"{max(counts)}/", "**/"))
        raise DataError(
            f"{request.where} contains Parquet files in {len(counts):,} folders ({listed}); give those of one folder, "
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
