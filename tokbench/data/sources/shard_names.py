"""Detects missing shards by file names that state the total, such as `train-00000-of-00004.parquet`."""

from __future__ import annotations

import glob
import re
import shlex
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from tokbench.errors import DataError

_NAME = re.compile(r"(.*?)(\d+)-of-(\d+)(.*)", re.DOTALL)

_MAX_TOTAL = 1_000_000
"""Upper limit on the total; a name with a larger number is not considered the name of a shard."""

_NUM_EXAMPLES = 3
"""Number of missing files that a message lists."""


def refuse_missing(where: str, root: str | None, names: Sequence[str], pattern: str | None) -> None:
    """Raise DataError if shards are missing among `names`, which are paths relative to `root`.

    where: the path given by the user. pattern: the pattern that selected the files; None if a folder was given. Shards
    are not missing if the pattern would not match them, because then they are left out on purpose.
    """
    for (folder, prefix, total), present in _shard_sets(names).items():
        first = 1 if int(total) in present and 0 not in present else 0
        absent = [number for number in range(first, first + int(total)) if number not in present]
        if not absent or max(present) >= first + int(total):
            continue
        missing = [_shard_name(prefix, number, total, present) for number in absent]
        files = [PurePosixPath(name).name for name in present.values()]
        file_pattern = PurePosixPath(pattern).name if pattern else ""
        if _matches_only(file_pattern, files, missing):
            continue
        remedy = "give a pattern that matches only existing files"
        if exact := _exact_pattern(prefix, total, present, missing):
            path = "/".join(filter(None, (root, folder, exact)))
            remedy = f"give only the existing ones: --data {shlex.quote(path)}"
        more = f" and {len(missing) - _NUM_EXAMPLES:,} more" if len(missing) > _NUM_EXAMPLES else ""
        raise DataError(
            f"{where} contains {len(present):,} of {int(total):,} files {prefix}*-of-{total}; missing: "
            f"{', '.join(missing[:_NUM_EXAMPLES])}{more}. Fetch the missing files, or {remedy}"
        )


def _shard_sets(names: Sequence[str]) -> Mapping[tuple[str, str, str], dict[int, str]]:
    """Return the files of each set by shard number. The key of a set is (folder, prefix, total)."""
    sets: dict[tuple[str, str, str], dict[int, str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        match = _NAME.fullmatch(file)
        if match and 0 < int(match[3][:9]) <= _MAX_TOTAL and len(match[3]) < 10 and len(match[2]) < 10:
            sets.setdefault((folder, match[1], match[3]), {})[int(match[2])] = name
    return sets


def _shard_name(prefix: str, number: int, total: str, present: Mapping[int, str]) -> str:
    """Return the name of a shard, formed like those of the present shards.

    The part after the total is `*` if it differs between them.
    """
    digits, suffix = _name_format(present)
    return f"{prefix}{number:0{digits}}-of-{total}{suffix}"


def _name_format(present: Mapping[int, str]) -> tuple[int, str]:
    """Return the smallest number of digits of the shard numbers, and the part of the names after the total."""
    digits, ends = set(), set()
    for name in present.values():
        match = _NAME.fullmatch(PurePosixPath(name).name)
        assert match is not None
        digits.add(len(match[2]))
        ends.add(match[4])
    suffix = PurePosixPath(next(iter(present.values()))).suffix
    return min(digits), ends.pop() if len(ends) == 1 else f"*{suffix}"


def _exact_pattern(prefix: str, total: str, present: Mapping[int, str], missing: Sequence[str]) -> str | None:
    """Return a glob pattern that lists the digits of the present shards; None if it would match missing ones."""
    width, after = _name_format(present)
    numbers = [f"{number:0{width}}" for number in sorted(present)]
    if len({len(number) for number in numbers}) > 1:
        return None
    columns = ["".join(sorted(set(column))) for column in zip(*numbers, strict=True)]
    digits = "".join(column if len(column) == 1 else f"[{column}]" for column in columns)
    end = after if after.startswith("*") else glob.escape(after)
    pattern = f"{glob.escape(prefix)}{digits}-of-{total}{end}"
    return pattern if _matches_only(pattern, [PurePosixPath(name).name for name in present.values()], missing) else None


def _matches_only(pattern: str, files: Sequence[str], missing: Sequence[str]) -> bool:
    """Return whether a pattern matches all existing files and none of the missing ones."""
    matched = all(fnmatchcase(name, pattern) for name in files)
    return matched and not any(fnmatchcase(name, pattern) for name in missing)
