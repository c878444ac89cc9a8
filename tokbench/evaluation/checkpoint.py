"""Journal: what an unfinished run has found so far, on disk, so that the same command goes on where it was stopped."""

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
except ImportError:  # Windows: two runs of one command at once are then not told apart
    fcntl = None  # type: ignore[assignment]

_ABOUT, _LOCK = "about.json", "lock"


@dataclass(frozen=True)
class Chunk:
    """What was kept of one unit of images: positions (n,), digests of their pixels, the names of columns in `file` by
    metric, and why metrics were skipped."""

    index: np.ndarray
    digests: list[str]
    columns: dict[str, list[str]]
    skipped: dict[str, str]
    file: Path

    def load(self, metric: str, column: str) -> np.ndarray:
        """One column (n, ...)."""
        with np.load(self.file, allow_pickle=False) as arrays:
            values: np.ndarray = arrays[f"{metric}/{column}"]
        return values


class Checkpoint:
    """One adapter's unfinished run: a folder with a file for each finished unit of images.

    Its name is a hash of all that the numbers depend on (`about`), so whatever finds a journal may use it. Files are
    renamed into place. Several processes may write the same journal; the last one of them deletes it.
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

    def path(self, unit: int) -> Path | None:
        """Where a unit's file is or would be; None where nothing can be kept."""
        return self.folder / f"{unit:07d}.npz" if self.folder else None

    def read(self, unit: int) -> Chunk | None:
        """What was kept of a unit; None where it is not there, or damaged."""
        file = self.path(unit)
        if file is None or not file.exists():
            return None
        try:
            with np.load(file, allow_pickle=False) as arrays:
                told = json.loads(str(arrays["told"]))
                held = {name: arrays[name] for name in arrays.files}  # reading checks every sum
            missing = [f"{m}/{c}" for m, columns in told["columns"].items() for c in columns if f"{m}/{c}" not in held]
            if missing or len(held["index"]) != len(told["digests"]):
                return None
            return Chunk(held["index"], told["digests"], told["columns"], told["skipped"], file)
        except (*UNREADABLE, TypeError, AttributeError):
            return None

    def write(
        self,
        unit: int,
        index: np.ndarray,
        digests: list[str],
        columns: Mapping[str, Mapping[str, np.ndarray]],
        skipped: Mapping[str, str],
    ) -> Path | None:
        """Keep a unit's columns by metric and name. Its file; None where that was not possible, which is said once."""
        file = self.path(unit)
        if file is None:
            return None
        told = {"digests": digests, "columns": {m: list(c) for m, c in columns.items()}, "skipped": dict(skipped)}
        arrays = {f"{metric}/{name}": values for metric, own in columns.items() for name, values in own.items()}
        buffer = io.BytesIO()
        np.savez(buffer, told=np.array(json.dumps(told)), index=index, **arrays)  # type: ignore[arg-type]
        try:
            write_atomically(file, buffer.getvalue())
        except ResultError as error:
            self._give_up(error)
            return None
        return file

    def _give_up(self, error: Exception) -> None:
        self._warn(f"what this run finds is kept in memory only and cannot be resumed, since {error}")
        self.folder = None

    def discard(self) -> None:
        """Delete it, for its result is written; where another process still uses it, that is left to the other."""
        if self._lock is None:
            return
        folder = Path(self._lock.name).parent
        with contextlib.suppress(OSError):
            if fcntl:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
        self.close()

    def close(self) -> None:
        """Let go of it, and leave it for the same command."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


@dataclass(frozen=True)
class UnfinishedRun:
    """An unfinished run that lies in the cache: what it was about, about how many images are done, bytes, and seconds
    since its last file."""

    folder: Path
    about: dict[str, Any]
    images: int
    size: int
    age: float


def unfinished(folder: Path) -> Iterator[UnfinishedRun]:
    """The journals in a folder."""
    for place in sorted(folder.glob("*/")) if folder.is_dir() else ():
        try:
            about = json.loads((place / _ABOUT).read_text(encoding="utf-8"))
            files = [file.stat() for file in place.glob("*.npz")]
            images = min(CHUNK * len(files), int(about.get("images", 0)))
        except (OSError, ValueError, TypeError, AttributeError):
            continue
        last = max([stat.st_mtime for stat in files], default=(place / _ABOUT).stat().st_mtime)
        yield UnfinishedRun(place, about, images, sum(stat.st_size for stat in files), time.time() - last)


def delete(folder: Path) -> bool:
    """Delete a journal, unless a run is using it."""
    try:
        with (folder / _LOCK).open("a") as lock:
            if fcntl:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
    except OSError:
        return False
    return True
