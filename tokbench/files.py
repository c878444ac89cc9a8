"""Files that are never half written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tokbench.errors import ResultError


def write_atomically(target: Path, data: bytes) -> None:
    """Write beside the target and rename, so that a reader (or an interruption) never meets half a file.

    Raises ResultError where it cannot be written; the file that was there is then untouched.
    """
    part = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(part, 0o644)
        os.replace(part, target)
    except OSError as error:
        raise ResultError(
            f"{target} cannot be written ({error.strerror}); the file that was there is untouched"
        ) from error
    finally:
        if part:
            Path(part).unlink(missing_ok=True)
