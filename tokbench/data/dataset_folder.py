"""A folder of datasets/: what its dataset.toml says, and where on this machine its images are."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokbench.errors import DataError
from tokbench.paths import cache_dir
from tokbench.validate import Count, Positive, convert


@dataclass(frozen=True)
class _DatasetFile:
    """What dataset.toml must hold; further keys are kept as they are."""

    title: str
    size: Positive
    get: str
    licence: str
    count: Count | None = None
    sources: list[str] | None = None
    order: str | None = None
    manifest: str | None = None
    layout: Literal["tokbench"] | None = None
    part: str | None = None

    def __post_init__(self) -> None:
        if self.layout:  # whose sets may be more or fewer
            needed: tuple[str, ...] = ("sources", "order", "part")
        else:
            needed = ("count",) if self.manifest else ("count", "sources", "order")
        if missing := [name for name in needed if getattr(self, name) is None]:
            raise ValueError(f"{', '.join(missing)} must be given")


def describe(folder: Path) -> dict[str, Any]:
    """A dataset folder's dataset.toml. Raises DataError where a key is missing or of the wrong type."""
    try:
        described = tomllib.loads((folder / "dataset.toml").read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{folder}/dataset.toml cannot be read ({error})") from error
    convert(described, _DatasetFile, f"{folder}/dataset.toml", DataError)
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
