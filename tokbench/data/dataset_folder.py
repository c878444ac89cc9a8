"""Reads the dataset.toml of a folder in datasets/ and locates its images on this machine."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from tokbench.errors import DataError
from tokbench.paths import cache_dir


def describe(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's dataset.toml. Raises DataError if it is unreadable or lacks a required key."""
    try:
        description = tomllib.loads((folder / "dataset.toml").read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{folder}/dataset.toml cannot be read ({error})") from error
    needed = {"title", "size", "get", "licence"}
    if (layout := description.get("layout", "tokbench")) != "tokbench":
        raise DataError(f"{folder}/dataset.toml: layout = {layout!r}; the only layout is tokbench")
    if "layout" in description:  # the number of sets may vary, so it has no count
        needed |= {"sources", "order", "part"}
    else:
        needed |= {"count"} | (set() if "manifest" in description else {"sources", "order"})
    if missing := needed - set(description):
        raise DataError(f"{folder}/dataset.toml lacks {', '.join(sorted(missing))}")
    return description


def search_folders(name: str) -> list[Path]:
    """Return the folders in which the images of a dataset that users provide are searched."""
    chosen = os.environ.get("TOKBENCH_DATA")
    return ([Path(chosen).expanduser() / name] if chosen else []) + [cache_dir() / "data" / name]


def locate(name: str, description: dict[str, Any]) -> list[Path]:
    """Return the files or the folder of a dataset on this machine: the first of its `sources` that exists, or []."""
    for folder in search_folders(name):
        for pattern in description["sources"]:
            matches = sorted(folder.glob(pattern)) if "*" in pattern else [folder / pattern]
            if paths := [path for path in matches if path.exists()]:
                return paths
    return []
