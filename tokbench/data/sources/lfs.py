"""Recognises pointers of Git LFS, which a clone contains instead of large files that were not downloaded."""

from __future__ import annotations

from pathlib import Path

from tokbench.data.decode import LFS_POINTER, LFS_REMEDY
from tokbench.errors import DataError


def refuse_pointer(path: Path) -> None:
    """Raise DataError if a file is a pointer of Git LFS."""
    try:
        with path.open("rb") as file:
            pointer = file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:  # opening the file itself reports the error
        return
    if pointer:
        raise DataError(f"{path}: {LFS_REMEDY}")
