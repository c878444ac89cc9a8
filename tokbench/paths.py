"""Paths on this machine: the package, the root folder of plug-ins, the dataset folders and the cache."""

from __future__ import annotations

import os
import re
from pathlib import Path

import platformdirs

from tokbench.errors import UsageError


def cache_dir() -> Path:
    """Return the cache folder: TOKBENCH_CACHE, or the platform's default. The folder is not created."""
    if chosen := os.environ.get("TOKBENCH_CACHE"):
        return Path(chosen).expanduser()
    return platformdirs.user_cache_path("tokbench", appauthor=False, opinion=False)


PACKAGE = Path(__file__).resolve().parent
"""The folder of the tokbench package."""

CHECKOUT = PACKAGE.parent
"""The source checkout if tokbench runs from one. In an installation this folder contains no plug-ins."""


def find_root(chosen: Path | None = None) -> Path | None:
    """Return the folder that contains adapters/ and datasets/, or None.

    It is `chosen` (--root), or TOKBENCH_ROOT, or the current directory if it contains plug-ins, or the source checkout.
    Raises UsageError if the folder given by `chosen` or TOKBENCH_ROOT contains no plug-ins.
    """
    explicit = chosen or (Path(os.environ["TOKBENCH_ROOT"]) if os.environ.get("TOKBENCH_ROOT") else None)
    if explicit is not None:
        explicit = explicit.expanduser()
        if not _has_plugins(explicit):
            raise UsageError(f"{explicit} contains neither an adapters/ nor a datasets/ folder with plug-ins")
        return explicit
    return next((folder for folder in (Path.cwd(), CHECKOUT) if _has_plugins(folder)), None)


def _has_plugins(folder: Path) -> bool:
    patterns = ("adapters/*/adapter.py", "adapters/*/network.py", "datasets/*/dataset.toml")
    return any(any(folder.glob(pattern)) for pattern in patterns)


def dataset_folders(root: Path | None = None) -> dict[str, Path]:
    """Return the dataset folders by name. A dataset of the root takes precedence over one of the source checkout."""
    roots = [folder for folder in (CHECKOUT, find_root(root)) if folder is not None]
    return {
        toml.parent.name: toml.parent for folder in roots for toml in sorted(folder.glob("datasets/*/dataset.toml"))
    }


def slug(text: str) -> str:
    """Return a form of a name that is safe as a file name: letters, digits, dot, dash and underscore."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "unnamed"
