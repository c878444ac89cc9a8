"""Files that are never half written."""

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
    """Keep other processes that do the same out of a folder, where the system can (not Windows, not every network
    file system); else two runs that finish in the same moment may lose one of their results."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # what is done in it will say why
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
    """The bytes of a whole file, as `replacing` writes it."""
    with atomic_path(target) as part:
        part.write_bytes(data)
