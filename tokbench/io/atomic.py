"""Atomic file writes and folder locks."""

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
    """Hold an exclusive lock on a folder, which other processes that call this function wait for.

    If the folder is not writable or its file system has no locks, the block runs without one. Then two runs that finish
    at the same moment may lose one of their results.
    """
    lock = FileLock(folder / LOCK)
    with suppress(OSError, NotImplementedError):  # the writes into the folder report the reason
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield the path of a temporary file beside `target`, which replaces `target` when the block ends.

    Readers therefore never see a partly written target, even if the process is interrupted. Raises ResultError if the
    file cannot be written; an existing target is then unchanged.
    """
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except OSError as error:
        raise ResultError(f"{target} cannot be written ({error.strerror}); an existing file is unchanged") from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def write_atomically(target: Path, data: bytes) -> None:
    """Write `data` as the whole content of `target`, as `atomic_path` does. Raises ResultError if that fails."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)
