"""Patterns of paths: wildcards (`*.png`, `**`) and the braces of webdataset (`shard-{0000..0009}.tar`)."""

from __future__ import annotations

import os
from functools import lru_cache
from glob import glob, has_magic
from itertools import islice, takewhile
from pathlib import Path

from braceexpand import braceexpand

from tokbench.data.sources.base import MAX_IMAGES, is_hidden, printable_name
from tokbench.data.sources.folder import Folder, FolderListing, list_paths
from tokbench.errors import UsageError
from tokbench.io.counts import count_of
from tokbench.io.left_out import describe_left_out

_NUM_EXAMPLES = 3
"""Number of missing files that a message lists."""


def is_path(data: str) -> bool:
    """Return whether `data` is an existing path or a pattern, and not the name of a dataset."""
    return Path(data).expanduser().exists() or is_pattern(data)


def is_pattern(data: str) -> bool:
    """Return whether a path that does not exist is a pattern, such as `folder/train-*.parquet` or `{0..9}.tar`."""
    return has_magic(data) or _expand(data) != (data,)


def folder_of(data: str) -> Path:
    """Return the path itself if it exists, or the folder below which a pattern can match."""
    path = Path(data).expanduser()
    if path.exists():
        return path
    expanded = _expand(str(path))
    folders = [Path(*takewhile(lambda part: not has_magic(part), Path(one).parts)) for one in expanded]
    if len(expanded) == 1:
        return folders[0]
    whole = [folder.parent if folder == Path(one) else folder for folder, one in zip(folders, expanded, strict=True)]
    try:
        return Path(os.path.commonpath(whole))
    except ValueError:  # relative paths without a common folder
        return Path()


def list_pattern(where: str, follow_links: bool) -> tuple[Path, FolderListing]:
    """Return the folder below which a pattern matches, and the files that it matches.

    Raises UsageError if it matches nothing, or if a file or pattern that its braces list matches nothing.
    """
    root = folder_of(where)
    if not root.is_dir():
        raise UsageError(f"no file matches {where}: there is no folder {root}")
    matches: list[str] = []
    missing: list[str] = []
    patterns = _expand(str(Path(where).expanduser()))
    for pattern in patterns:
        rest = str(Path(pattern).relative_to(root))
        found = glob(rest, root_dir=root, recursive=True)
        if not found and (len(patterns) > 1 or not has_magic(rest)):
            missing.append(rest)
        matches += [name.replace(os.sep, "/").rstrip("/") for name in found]
    listing = list_paths(root, sorted(set(filter(None, matches))), follow_links)
    if not listing.images and not listing.packed:
        names = sorted(name for name in os.listdir(root) if not is_hidden(name))
        content = ", ".join(map(printable_name, names[:5]))
        content += f" and {len(names) - 5:,} more" if len(names) > 5 else ""
        note = f"; {describe_left_out(Folder(listing).left_out)}" if listing.left_out else ""
        raise UsageError(f"no image or file of images matches {where}{note}; {root} contains {content or 'nothing'}")
    if missing:
        listed = ", ".join(missing[:_NUM_EXAMPLES]) + (", ..." if len(missing) > _NUM_EXAMPLES else "")
        raise UsageError(
            f"{where} lists {count_of(len(missing), 'name')} without a match in {root}: {listed}; fetch what is "
            "missing, or give a pattern that lists only existing files"
        )
    return root, listing


@lru_cache(maxsize=8)
def _expand(data: str) -> tuple[str, ...]:
    """Return the patterns that braces stand for; the pattern itself if it has none."""
    if "{" not in data:
        return (data,)
    try:
        return tuple(islice(braceexpand(data), MAX_IMAGES))
    except ValueError:  # unbalanced braces
        return (data,)
