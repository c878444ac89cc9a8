"""Atomic file writes and folder locks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tokbench.errors import ResultError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder, which other processes that call this function wait for.

    Windows and some network file systems do not support the lock. Without it, two runs that finish at the same moment
    may lose one of their results.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # the writes into the folder report the reason
        yield
        return
    try:
        if fcntl:
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


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
