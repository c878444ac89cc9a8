"""Where things lie on this machine: the package, the root of plug-ins, dataset folders, the cache."""

from __future__ import annotations

import os
import re
from pathlib import Path

import platformdirs

from tokbench.errors import UsageError


def cache_dir() -> Path:
    """tokbench's cache folder: TOKBENCH_CACHE, else the platform's (not created here)."""
    if chosen := os.environ.get("TOKBENCH_CACHE"):
        return Path(chosen).expanduser()
    return platformdirs.user_cache_path("tokbench", appauthor=False, opinion=False)


PACKAGE = Path(__file__).resolve().parent
"""tokbench's own code."""

CHECKOUT = PACKAGE.parent
"""The source checkout, where tokbench runs from one; in an installation this folder holds no plug-ins."""


def find_root(chosen: Path | None = None) -> Path | None:
    """The folder that adapters/ and datasets/ hang from, or None.

    `chosen` (--root), else TOKBENCH_ROOT, else the current directory where it holds one, else the source checkout.
    Raises UsageError where a root was chosen that holds neither.
    """
    named = chosen or (Path(os.environ["TOKBENCH_ROOT"]) if os.environ.get("TOKBENCH_ROOT") else None)
    if named is not None:
        named = named.expanduser()
        if not _holds_plugins(named):
            raise UsageError(f"{named} holds neither an adapters/ nor a datasets/ folder of plug-ins")
        return named
    return next((place for place in (Path.cwd(), CHECKOUT) if _holds_plugins(place)), None)


def _holds_plugins(place: Path) -> bool:
    patterns = ("adapters/*/adapter.py", "adapters/*/network.py", "datasets/*/dataset.toml")
    return any(any(place.glob(pattern)) for pattern in patterns)


def dataset_folders(root: Path | None = None) -> dict[str, Path]:
    """Dataset folders by name: those of the root, then those of the source checkout that have other names."""
    places = [place for place in (CHECKOUT, find_root(root)) if place is not None]
    return {toml.parent.name: toml.parent for place in places for toml in sorted(place.glob("datasets/*/dataset.toml"))}


def slug(text: str) -> str:
    """A file-name-safe form of a name: letters, digits, dot, dash and underscore."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "unnamed"
