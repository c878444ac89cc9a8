"""Checkpoint: the values of an unfinished run on disk, from which the same command can resume."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from tokbench.data.stream import CHUNK
from tokbench.errors import ResultError
from tokbench.io.atomic import write_atomically
from tokbench.metrics.sample_store import UNREADABLE

try:
    # Not filelock: its locks are exclusive, and the one for readers and writers needs a SQLite database in the folder,
    # which network file systems do not support, and cannot turn a reader into a writer, as `discard` does.
    import fcntl
except ImportError:  # Windows: two simultaneous runs of one command are not detected
    fcntl = None  # type: ignore[assignment]

_ABOUT, _LOCK = "about.json", "lock"


@dataclass(frozen=True)
class Chunk:
    """The saved values of one chunk of images.

    index: positions (n,). digests: hashes of the prepared pixels, one per image. columns: the names of the columns in
    `file` by metric. skipped: the reasons why metrics were skipped.
    """

    index: np.ndarray
    digests: list[str]
    columns: dict[str, list[str]]
    skipped: dict[str, str]
    file: Path

    def load(self, metric: str, column: str) -> np.ndarray:
        """Read one column (n, ...)."""
        with np.load(self.file, allow_pickle=False) as arrays:
            values: np.ndarray = arrays[f"{metric}/{column}"]
        return values


class Checkpoint:
    """The checkpoint of one adapter's unfinished run: a folder with a file for each finished chunk of images.

    The folder's name is a hash of everything that the numbers depend on (`about`), so a checkpoint that is found is
    valid. Files are renamed into place. Several processes may write the same checkpoint; the last one deletes it.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], warn: Callable[[str], None] = lambda text: None) -> None:
        text = json.dumps(about, sort_keys=True)
        self.folder: Path | None = folder / hashlib.sha256(text.encode()).hexdigest()[:32]
        self._warn = warn
        self._lock: IO[str] | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / _LOCK).open("a")
            if fcntl:
                fcntl.flock(self._lock, fcntl.LOCK_SH)
            write_atomically(self.folder / _ABOUT, (text + "\n").encode())
        except (OSError, ResultError) as error:
            self._give_up(error)

    def path(self, chunk: int) -> Path | None:
        """Return the path of a chunk's file, which need not exist; None where nothing can be saved."""
        return self.folder / f"{chunk:07d}.npz" if self.folder else None

    def read(self, chunk: int) -> Chunk | None:
        """Return a saved chunk; None where it does not exist or is damaged."""
        file = self.path(chunk)
        if file is None or not file.exists():
            return None
        try:
            with np.load(file, allow_pickle=False) as arrays:
                header = json.loads(str(arrays["header"]))
                data = {name: arrays[name] for name in arrays.files}  # reading an array verifies its checksum
            columns = [f"{metric}/{name}" for metric, names in header["columns"].items() for name in names]
            if not all(column in data for column in columns) or len(data["index"]) != len(header["digests"]):
                return None
            return Chunk(data["index"], header["digests"], header["columns"], header["skipped"], file)
        except (*UNREADABLE, TypeError, AttributeError):
            return None

    def write(
        self,
        chunk: int,
        index: np.ndarray,
        digests: list[str],
        columns: Mapping[str, Mapping[str, np.ndarray]],
        skipped: Mapping[str, str],
    ) -> Path | None:
        """Save a chunk's columns by metric and name. Returns its file, or None where it could not be saved, with one
        warning."""
        file = self.path(chunk)
        if file is None:
            return None
        header = {"digests": digests, "columns": {m: list(c) for m, c in columns.items()}, "skipped": dict(skipped)}
        arrays = {f"{metric}/{name}": values for metric, named in columns.items() for name, values in named.items()}
        buffer = io.BytesIO()
        np.savez(buffer, header=np.array(json.dumps(header)), index=index, **arrays)  # type: ignore[arg-type]
        try:
            write_atomically(file, buffer.getvalue())
        except ResultError as error:
            self._give_up(error)
            return None
        return file

    def _give_up(self, error: Exception) -> None:
        self._warn(f"this run keeps its values in memory only and cannot be resumed, since {error}")
        self.folder = None

    def discard(self) -> None:
        """Delete the checkpoint after its result was written. Where another process still uses it, that process deletes
        it."""
        if self._lock is None:
            return
        folder = Path(self._lock.name).parent
        with contextlib.suppress(OSError):
            if fcntl:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
        self.close()

    def close(self) -> None:
        """Release the checkpoint without deleting it, so that the same command can resume from it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


@dataclass(frozen=True)
class UnfinishedRun:
    """The checkpoint of an unfinished run in the cache.

    about: what its numbers depend on. images: approximate number of finished images. size: bytes. age: seconds since
    its last file was written.
    """

    folder: Path
    about: dict[str, Any]
    images: int
    size: int
    age: float


def unfinished(folder: Path) -> Iterator[UnfinishedRun]:
    """Yield the checkpoints in a folder."""
    for path in sorted(folder.glob("*/")) if folder.is_dir() else ():
        try:
            about = json.loads((path / _ABOUT).read_text(encoding="utf-8"))
            files = [file.stat() for file in path.glob("*.npz")]
            images = min(CHUNK * len(files), int(about.get("images", 0)))
        except (OSError, ValueError, TypeError, AttributeError):
            continue
        last = max([stat.st_mtime for stat in files], default=(path / _ABOUT).stat().st_mtime)
        yield UnfinishedRun(path, about, images, sum(stat.st_size for stat in files), time.time() - last)


def delete(folder: Path) -> bool:
    """Delete a checkpoint unless a run is using it. Returns whether it was deleted."""
    try:
        with (folder / _LOCK).open("a") as lock:
            if fcntl:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
    except OSError:
        return False
    return True
