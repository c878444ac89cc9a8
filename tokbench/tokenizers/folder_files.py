"""The files of an adapter's folder that say what it computes and are no Python files: configuration, tables, compiled
code, archives of code, and networks in forms that hold programs."""

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
"""What counts. Checkpoints do not: the parameters of the networks that are filled from them are hashed."""

_NAMED = 32
"""So many files are named one by one; of more there is one hash over all, as of a folder of annotations."""


def files_of(folder: Path) -> dict[str, str]:
    """Path inside the folder -> sha256 of each such file. TOML files count below the folder alone, since those in it
    are the variants; what `tokbench train` writes and hidden folders do not."""
    found = {path.relative_to(folder).as_posix(): _digest(path) for path in _walk(folder)}
    if len(found) <= _NAMED:
        return dict(sorted(found.items()))
    text = "".join(f"{name} {digest}\n" for name, digest in sorted(found.items()))
    return {f"{len(found)} files": hashlib.sha256(text.encode()).hexdigest()}


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
    except OSError:  # it vanished, is a link to nothing, or may not be read
        return "unreadable"
