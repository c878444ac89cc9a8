"""Files of one set whose names say how many there are, as in `train-00000-of-00004.parquet`: is one missing?"""

from __future__ import annotations

import glob
import re
import shlex
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from tokbench.errors import DataError

_NAME = re.compile(r"(.*?)(\d+)-of-(\d+)(.*)", re.DOTALL)

_MOST = 1_000_000
"""Files that a name may speak of; more is no such name."""

_SHOWN = 3


def refuse_missing(where: str, root: str | None, names: Sequence[str], pattern: str | None) -> None:
    """Raises DataError where some files of a set are not among `names`, which are paths relative to `root`.

    pattern: by which the files were asked for, None where a folder was. One that the missing files would not match
    leaves them out on purpose.
    """
    for (folder, before, total), present in _sets(names).items():
        first = 1 if int(total) in present and 0 not in present else 0
        absent = [at for at in range(first, first + int(total)) if at not in present]
        if not absent or max(present) >= first + int(total):
            continue
        missing = [_named(before, at, total, present) for at in absent]
        here = [PurePosixPath(name).name for name in present.values()]
        chosen = PurePosixPath(pattern).name if pattern else ""
        if _only(chosen, here, missing):
            continue
        remedy = "give a pattern that matches only files that are here"
        if exact := _exact(before, total, present, missing):
            path = "/".join(filter(None, (root, folder, exact)))
            remedy = f"give those that are here alone: --data {shlex.quote(path)}"
        more = f" and {len(missing) - _SHOWN:,} more" if len(missing) > _SHOWN else ""
        raise DataError(
            f"{where} holds {len(present):,} of {int(total):,} files {before}*-of-{total}; missing: "
            f"{', '.join(missing[:_SHOWN])}{more}. Fetch what is missing, or {remedy}"
        )


def _sets(names: Sequence[str]) -> Mapping[tuple[str, str, str], dict[int, str]]:
    """The files of each set by their number; a set has a folder, a beginning and a total."""
    found: dict[tuple[str, str, str], dict[int, str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        match = _NAME.fullmatch(file)
        if match and 0 < int(match[3][:9]) <= _MOST and len(match[3]) < 10 and len(match[2]) < 10:
            found.setdefault((folder, match[1], match[3]), {})[int(match[2])] = name
    return found


def _named(before: str, at: int, total: str, present: Mapping[int, str]) -> str:
    """How a file is called by the example of the others; what follows the total is `*` where it is not one text."""
    digits, after = _form(before, total, present)
    return f"{before}{at:0{digits}}-of-{total}{after}"


def _form(before: str, total: str, present: Mapping[int, str]) -> tuple[int, str]:
    """The least digits of a number in these names, and what follows the total."""
    digits, ends = set(), set()
    for name in present.values():
        match = _NAME.fullmatch(PurePosixPath(name).name)
        assert match is not None
        digits.add(len(match[2]))
        ends.add(match[4])
    suffix = PurePosixPath(next(iter(present.values()))).suffix
    return min(digits), ends.pop() if len(ends) == 1 else f"*{suffix}"


def _exact(before: str, total: str, present: Mapping[int, str], missing: Sequence[str]) -> str | None:
    """A pattern of just the files that are there: for each digit those that occur. None where that says more."""
    least, after = _form(before, total, present)
    numbers = [f"{at:0{least}}" for at in sorted(present)]
    if len({len(number) for number in numbers}) > 1:
        return None
    columns = ["".join(sorted(set(column))) for column in zip(*numbers, strict=True)]
    digits = "".join(column if len(column) == 1 else f"[{column}]" for column in columns)
    end = after if after.startswith("*") else glob.escape(after)
    made = f"{glob.escape(before)}{digits}-of-{total}{end}"
    return made if _only(made, [PurePosixPath(name).name for name in present.values()], missing) else None


def _only(pattern: str, here: Sequence[str], missing: Sequence[str]) -> bool:
    """Whether a pattern matches all that is there and nothing that is missing."""
    matched = all(fnmatchcase(name, pattern) for name in here)
    return matched and not any(fnmatchcase(name, pattern) for name in missing)
