"""A folder of datasets/: what its dataset.toml says, and where on this machine its images are."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from tokbench.errors import DataError
from tokbench.paths import cache_dir


def describe(folder: Path) -> dict[str, Any]:
    """A dataset folder's dataset.toml. Raises DataError where a key is missing."""
    try:
        described = tomllib.loads((folder / "dataset.toml").read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{folder}/dataset.toml cannot be read ({error})") from error
    needed = {"title", "size", "get", "licence"}
    if (layout := described.get("layout", "tokbench")) != "tokbench":
        raise DataError(f"{folder}/dataset.toml: layout = {layout!r}; there is only tokbench")
    if "layout" in described:  # whose sets may be more or fewer
        needed |= {"sources", "order", "part"}
    else:
        needed |= {"count"} | (set() if "manifest" in described else {"sources", "order"})
    if missing := needed - set(described):
        raise DataError(f"{folder}/dataset.toml lacks {', '.join(sorted(missing))}")
    return described


def places(name: str) -> list[Path]:
    """Where a dataset that users bring is looked for."""
    chosen = os.environ.get("TOKBENCH_DATA")
    return ([Path(chosen).expanduser() / name] if chosen else []) + [cache_dir() / "data" / name]


def locate(name: str, described: dict[str, Any]) -> list[Path]:
    """The files or the folder that hold a dataset on this machine: the first of its `sources` that exists."""
    for place in places(name):
        for pattern in described["sources"]:
            if found := sorted(place.glob(pattern)) if "*" in pattern else [p for p in [place / pattern] if p.exists()]:
                return found
    return []
