"""Hashes of files and of source code."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def code_of(folder: Path, *others: Path) -> str:
    """Return the SHA-256 of the Python files in a folder (or of a single file) and of `others`, in hexadecimal.

    Cache entries contain it, so that values computed by other code are not reused.
    """
    digest = hashlib.sha256()
    for path in (*([folder] if folder.is_file() else sorted(folder.rglob("*.py"))), *others):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
