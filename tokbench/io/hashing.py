"""Hashes of files and of source code."""

from __future__ import annotations

import hashlib
import sys
import uuid
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


@cache
def code_of_class(cls: type) -> str:
    """Return the sha256 of the Python files of the package or module that defines a class.

    A class that is not defined in a file, such as one from a notebook, gets a unique value, because its code may have
    changed since the last run.
    """
    for name in (cls.__module__.partition(".")[0], cls.__module__):  # a namespace package has no file
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and Path(file).is_file():
            return code_of(Path(file).parent if Path(file).name == "__init__.py" else Path(file))
    return uuid.uuid4().hex
