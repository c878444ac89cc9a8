"""The files in an adapter folder that affect what the adapter computes and are not Python files: configuration, tables,
compiled code, archives of code, and networks in formats that contain programs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from tokbench.io.hashing import sha256_of

_CONFIGURATION = ("json", "yaml", "yml", "cfg", "ini")
_CODE = ("so", "pyd", "dll", "dylib", "pyc", "zip", "whl", "egg", "c", "cc", "cpp", "h", "hpp", "cu", "cuh", "pyx")
_NETWORKS = ("onnx", "jit", "ts", "pt2", "npy", "npz")
SUFFIXES = tuple({*EXTENSION_SUFFIXES, *(f".{end}" for end in (*_CONFIGURATION, *_CODE, *_NETWORKS))})
"""The suffixes of the files that are hashed. Checkpoints are not among them, since the parameters loaded from them are
hashed."""

_MAX_LISTED = 32
"""Up to this number, files are listed one by one. A larger number is represented by a single hash, for example a folder
of annotations."""


def files_of(folder: Path) -> dict[str, str]:
    """Return path inside the folder -> sha256 for each such file.

    TOML files count only in subfolders, since those directly in the folder are the variants. Files that `tokbench
    train` writes and hidden folders do not count.
    """
    digests = {path.relative_to(folder).as_posix(): _digest(path) for path in _walk(folder)}
    if len(digests) <= _MAX_LISTED:
        return dict(sorted(digests.items()))
    text = "".join(f"{name} {digest}\n" for name, digest in sorted(digests.items()))
    return {f"{len(digests)} files": hashlib.sha256(text.encode()).hexdigest()}


def _walk(folder: Path) -> Iterator[Path]:
    for place, below, names in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".") and name != "__pycache__"]
        inside = Path(place) != folder
        for path in (Path(place, name) for name in names if not name.startswith(".")):
            trained = not inside and path.name.endswith(".training.json")
            if (path.name.lower().endswith(SUFFIXES) and not trained) or (inside and path.suffix == ".toml"):
                yield path


def _digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError:  # the file was deleted, is a broken link, or may not be read
        return "unreadable"
