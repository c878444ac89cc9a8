"""Files that are never half written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from tokbench.errors import ResultError

LOCK = ".tokbench.lock"
"""The file that `folder_lock` locks. It stays in the folder: another process may be waiting for it."""


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Keep other processes that call this for the same folder waiting until the block ends.

    Where the folder cannot be written or its file system has no locks, the block runs without one: then two runs that
    finish in the same moment may lose one of their results.
    """
    lock = FileLock(folder / LOCK)
    with suppress(OSError, NotImplementedError):  # what is done in the folder will say why
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A file beside `target` to write, which takes its place in the end, so that a reader (or an interruption) never
    meets half a file.

    Raises ResultError where it cannot be written; the file that was there is then untouched.
    """
    part = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        os.close(handle)
        part = Path(name)
        yield part
        os.chmod(part, 0o644)
        os.replace(part, target)
    except OSError as error:
        raise ResultError(
            f"{target} cannot be written ({error.strerror}); the file that was there is untouched"
        ) from error
    finally:
        if part:
            part.unlink(missing_ok=True)


def write_atomically(target: Path, data: bytes) -> None:
    """The bytes of a whole file, as `atomic_path` writes it."""
    with atomic_path(target) as part:
        part.write_bytes(data)
