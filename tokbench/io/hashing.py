"""Hashes of files and of source code."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path


def sha256_of(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def code_of(folder: Path, *others: Path) -> str:
    """sha256 over the Python files in a folder, or of a single one, and others: what other code has measured must not
    be mixed in."""
    digest = hashlib.sha256()
    for path in (*([folder] if folder.is_file() else sorted(folder.rglob("*.py"))), *others):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
