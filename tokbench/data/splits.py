"""Splits of a data set (train, validation, test), told by the names of folders and of files.

A number over train and validation images together is one of nothing, so a folder or archive that holds several splits
is refused unless one of them is chosen. The words are those of Hugging Face's `datasets` (data_files.py,
`SPLIT_KEYWORDS`), and `trainval`, which is a split of its own.
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
    """The split that a file belongs to, and what names its files alone: a folder's path or a pattern."""

    split: str
    place: str


def known(word: str) -> str:
    """The split that a word means: validation for val. Any other word is its own."""
    return _SPLIT_OF.get(word.lower(), word)


def is_split(folder: str) -> bool:
    """Whether a folder's name is that of a split (`val`, `val2017`) or holds the word of one (`DIV2K_valid_HR`)."""
    return bool(_of_folder(folder) or _only_word(folder))


def of_shards(names: Sequence[str]) -> list[Part | None]:
    """The split of each file of many images: by the one split that is a word of its name, as in
    `train-00000-of-00004.parquet`, else by the nearest folder that is called so."""
    return [_of_shard(name) for name in names]


def _of_shard(name: str) -> Part | None:
    *folders, file = name.split("/")
    if word := _only_word(file):
        return Part(_SPLIT_OF[word.lower()], "/".join([*folders, f"*{word}*{PurePosixPath(file).suffix}"]))
    for depth in range(len(folders), 0, -1):
        if split := _of_folder(folders[depth - 1]):
            return Part(split, "/".join([*folders[:depth], "*"]))
    return None


def of_images(names: Sequence[str]) -> list[Part | None]:
    """The split of each image, by its folders: the outermost that is called as a split (`val`, `val2017`). Where no two
    splits are found so, the first level at which every folder has one split among its words (`DIV2K_train_HR`).

    Words in the names of images mean nothing: `test.png` is any picture.
    """
    folders = {name.rpartition("/")[0] for name in names}
    found = {folder: _outermost(folder) for folder in folders}
    if len({part.split for part in found.values() if part}) < 2:
        found = _by_words(folders) or found
    return [found[name.rpartition("/")[0]] for name in names]


def _outermost(folder: str) -> Part | None:
    parts = folder.split("/")
    for depth, part in enumerate(parts, 1):
        if split := _of_folder(part):
            return Part(split, "/".join(parts[:depth]))
    return None


def _by_words(folders: set[str]) -> dict[str, Part | None] | None:
    """By the first level of folders that all have one split among their words, and not all the same one."""
    paths = [folder.split("/") for folder in folders if folder]
    for depth in range(max(map(len, paths), default=0)):
        words = {path[depth]: _only_word(path[depth]) for path in paths if len(path) > depth}
        splits = {_SPLIT_OF[word.lower()] if word else None for word in words.values()}
        if len(splits) > 1 and None not in splits:
            return {folder: _at(folder.split("/"), depth, words) for folder in folders}
    return None


def _at(path: list[str], depth: int, words: dict[str, str | None]) -> Part | None:
    word = words.get(path[depth]) if len(path) > depth else None
    return Part(_SPLIT_OF[word.lower()], "/".join(path[: depth + 1])) if word else None


def _of_folder(name: str) -> str | None:
    """The split of a folder that is called so and no more, but for a year or number."""
    match = re.fullmatch(r"([a-z]+)[-_. ]?\d*", name.lower())
    return _SPLIT_OF.get(match[1]) if match else None


def _only_word(name: str) -> str | None:
    """The word of a name that means a split; None where there is none, or several mean different ones."""
    words = [word for word in re.findall(r"[A-Za-z]+", name) if word.lower() in _SPLIT_OF]
    return words[0] if len({_SPLIT_OF[word.lower()] for word in words}) == 1 else None


def choose(where: str, parts: Sequence[Part | None], asked: str | None, what: str, root: str | None) -> list[int]:
    """Positions of what makes up one data set: all, where there are not several splits; those of the split asked for.

    where: the path as it was given. what: what each position is, as in "image". root: the folder that places of the
    parts lead on from; None where all lie in one file, so that no path leads to a split alone. Raises DataError where
    there are several splits and none is asked for, UsageError where the one asked for is not there.
    """
    counts = Counter(part.split if part else None for part in parts)
    splits = sorted(split for split in counts if split)
    listed = [f"{split}: {_count(counts[split], what)}" for split in splits]
    if asked is not None:
        if known(asked) not in splits:
            there = f"there are {', '.join(listed)}" if listed else "no folder or file there is called as a split"
            raise UsageError(f"{where} holds no split '{asked}'; {there}")
        return [position for position, part in enumerate(parts) if part and part.split == known(asked)]
    if len(splits) < 2:
        return list(range(len(parts)))
    if counts[None]:
        listed.append(f"in none of them: {_count(counts[None], what)}")
    shown = "validation" if "validation" in splits else splits[-1]
    place = next(part.place for part in parts if part and part.split == shown)
    remedy = f"give --split {shown}"
    if root is not None:
        remedy += f", or that split alone: --data {shlex.quote(f'{root}/{place}')}"
    raise DataError(f"{where} holds several splits ({', '.join(listed)}); {remedy}")


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' if count > 1 else ''}"
