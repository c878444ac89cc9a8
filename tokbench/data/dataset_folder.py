"""Reads the dataset.toml of a folder in datasets/ and locates its images on this machine."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokbench.errors import DataError
from tokbench.metric_names import Modality
from tokbench.paths import cache_dir
from tokbench.validate import Count, Positive, convert


@dataclass(frozen=True)
class _DatasetFile:
    """The required and optional keys of dataset.toml. Other keys are allowed and not checked.

    recipe, split: which synthetic images are drawn (`tokbench.data.sources.synthetic`). captions: the rule for captions
    (`tokbench.data.captions`). class_names: file with one class name per line, relative to the folder. modality: what
    the items are (`tokbench.modalities`); `size` is then the side of frames, samples a second, or voxels per side.
    where, label: the values that rows must have by column, and the column of labels, for Parquet files of other
    modalities than images.
    """

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
    recipe: str | None = None
    split: str | None = None
    captions: str | None = None
    class_names: str | None = None
    modality: Modality = "image"
    where: dict[str, str] | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if self.layout:  # the number of sets may vary, so it has no count
            needed: tuple[str, ...] = ("sources", "order", "part")
        elif self.recipe:
            needed = ("count", "split")
        else:
            needed = ("count",) if self.manifest else ("count", "sources", "order")
        if missing := [name for name in needed if getattr(self, name) is None]:
            raise ValueError(f"{', '.join(missing)} must be given")


def describe(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's dataset.toml. Raises DataError if it is unreadable, or if a key is missing or
    has the wrong type."""
    try:
        description = tomllib.loads((folder / "dataset.toml").read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{folder}/dataset.toml cannot be read ({error})") from error
    convert(description, _DatasetFile, f"{folder}/dataset.toml", DataError)
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
