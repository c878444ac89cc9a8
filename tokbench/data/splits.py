"""Recognises the splits of a dataset (train, validation, test) by the names of folders and files.

A metric over train and validation images together is meaningless, so a folder or archive with several splits is refused
unless one of them is requested. The keywords are those of Hugging Face's `datasets` (data_files.py, `SPLIT_KEYWORDS`)
and `trainval`, which is a separate split.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from tokbench.errors import DataError, UsageError

_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
    "trainval": ("trainval",),
}
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}


@dataclass(frozen=True)
class Part:
    """The split of a file, and a folder or glob pattern that matches the files of that split only."""

    split: str
    pattern: str


def canonical_split(word: str) -> str:
    """Return the split that a keyword means, such as validation for val. Any other word is returned unchanged."""
    return _SPLIT_OF.get(word.lower(), word)


def is_split(folder: str) -> bool:
    """Return whether a folder is named after a split (`val`, `val2017`) or contains its keyword (`DIV2K_valid_HR`)."""
    return bool(_split_of_folder(folder) or _only_keyword(folder))


def splits_of_shards(names: Sequence[str]) -> list[Part | None]:
    """Return the split of each file of many images, or None.

    It is the only split whose keyword is in the file name, as in `train-00000-of-00004.parquet`, else that of the
    nearest folder named after a split.
    """
    return [_split_of_shard(name) for name in names]


def _split_of_shard(name: str) -> Part | None:
    *folders, file = name.split("/")
    if word := _only_keyword(file):
        return Part(_SPLIT_OF[word.lower()], "/".join([*folders, f"*{word}*{PurePosixPath(file).suffix}"]))
    for depth in range(len(folders), 0, -1):
        if split := _split_of_folder(folders[depth - 1]):
            return Part(split, "/".join([*folders[:depth], "*"]))
    return None


def splits_of_images(names: Sequence[str]) -> list[Part | None]:
    """Return the split of each image, or None, by the folders of its path.

    It is given by the outermost folder named after a split (`val`, `val2017`). If this gives fewer than two splits, it
    is given by the first level at which the name of every folder contains one keyword (`DIV2K_train_HR`). Keywords in
    the names of images are ignored: `test.png` may belong to any split.
    """
    folders = {name.rpartition("/")[0] for name in names}
    parts = {folder: _outermost_split(folder) for folder in folders}
    if len({part.split for part in parts.values() if part}) < 2:
        parts = _splits_by_keyword(folders) or parts
    return [parts[name.rpartition("/")[0]] for name in names]


def _outermost_split(folder: str) -> Part | None:
    parts = folder.split("/")
    for depth, part in enumerate(parts, 1):
        if split := _split_of_folder(part):
            return Part(split, "/".join(parts[:depth]))
    return None


def _splits_by_keyword(folders: set[str]) -> dict[str, Part | None] | None:
    """Return the splits by the first level at which every folder name contains a keyword, and not all the same one."""
    paths = [folder.split("/") for folder in folders if folder]
    for depth in range(max(map(len, paths), default=0)):
        words = {path[depth]: _only_keyword(path[depth]) for path in paths if len(path) > depth}
        splits = {_SPLIT_OF[word.lower()] if word else None for word in words.values()}
        if len(splits) > 1 and None not in splits:
            return {folder: _part_at(folder.split("/"), depth, words) for folder in folders}
    return None


def _part_at(path: list[str], depth: int, words: dict[str, str | None]) -> Part | None:
    word = words.get(path[depth]) if len(path) > depth else None
    return Part(_SPLIT_OF[word.lower()], "/".join(path[: depth + 1])) if word else None


def _split_of_folder(name: str) -> str | None:
    """Return the split of a folder whose name is a keyword, optionally followed by a year or number; else None."""
    match = re.fullmatch(r"([a-z]+)[-_. ]?\d*", name.lower())
    return _SPLIT_OF.get(match[1]) if match else None


def _only_keyword(name: str) -> str | None:
    """Return the keyword of a split in a name; None if there is none, or if there are keywords of several splits."""
    words = [word for word in re.findall(r"[A-Za-z]+", name) if word.lower() in _SPLIT_OF]
    return words[0] if len({_SPLIT_OF[word.lower()] for word in words}) == 1 else None


def choose(where: str, parts: Sequence[Part | None], requested: str | None, noun: str, root: str | None) -> list[int]:
    """Return the positions of the requested split, or all positions if none is requested and there are not several.

    where: the path given by the user. noun: what each position is, such as "image", for messages. root: the folder that
    patterns of the parts are relative to; None if all are in one file, so that no path selects a single split.

    Raises DataError if there are several splits and none is requested, UsageError if the requested one is absent.
    """
    counts = Counter(part.split if part else None for part in parts)
    splits = sorted(split for split in counts if split)
    listed = [f"{split}: {_count(counts[split], noun)}" for split in splits]
    if requested is not None:
        if canonical_split(requested) not in splits:
            present = f"there are {', '.join(listed)}" if listed else "no folder or file in it is named after a split"
            raise UsageError(f"{where} contains no split '{requested}'; {present}")
        return [i for i, part in enumerate(parts) if part and part.split == canonical_split(requested)]
    if len(splits) < 2:
        return list(range(len(parts)))
    if counts[None]:
        listed.append(f"in none of them: {_count(counts[None], noun)}")
    example = "validation" if "validation" in splits else splits[-1]
    pattern = next(part.pattern for part in parts if part and part.split == example)
    remedy = f"give --split {example}"
    if root is not None:
        remedy += f", or that split alone: --data {shlex.quote(f'{root}/{pattern}')}"
    raise DataError(f"{where} contains several splits ({', '.join(listed)}); {remedy}")


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' if count > 1 else ''}"
