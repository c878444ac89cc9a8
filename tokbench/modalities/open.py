"""open_dataset: opens data of any modality by name or path."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokbench.data import dataset as images
from tokbench.data.dataset import Dataset
from tokbench.data.dataset_folder import describe, locate, search_folders
from tokbench.data.even_sample import even_sample, fingerprint
from tokbench.data.reading import DEFAULTS, ReadOptions
from tokbench.data.sources.base import Source, is_hidden, is_image
from tokbench.data.sources.patterns import is_path, is_pattern
from tokbench.data.splits import canonical_split
from tokbench.errors import DataError, UsageError
from tokbench.metric_names import Modality
from tokbench.modalities.dataset import MediaDataset
from tokbench.modalities.shapes import sources as shapes
from tokbench.modalities.shapes.dataset import ShapeDataset
from tokbench.modalities.sound import sources as sound
from tokbench.modalities.sound.dataset import SoundDataset
from tokbench.modalities.video import sources as video
from tokbench.modalities.video.dataset import VideoDataset
from tokbench.paths import dataset_folders, slug
from tokbench.protocol.protocol import Protocol

RowOptions = dict[str, Any] | None


@dataclass(frozen=True)
class MediaReader:
    """How data of one modality are opened.

    dataset: the class of the dataset. files: opens a file or folder, whose files have `suffixes`. rows: opens a Parquet
    file with `columns`, of which rows are selected by values of other columns, with a column of labels. recipes: opens
    the first items of a split of synthetic data, by the name of the recipe.
    """

    dataset: type[MediaDataset]
    files: Callable[[Path], Source]
    suffixes: tuple[str, ...]
    rows: Callable[[Path, RowOptions, str | None], Source]
    columns: tuple[str, ...]
    recipes: dict[str, Callable[[str, int], Source]]


READERS: dict[Modality, MediaReader] = {
    "video": MediaReader(
        VideoDataset, video.VideoFiles, video.SUFFIXES, video.ClipRows, video.COLUMNS, {"sprites": video.Sprites}
    ),
    "sound": MediaReader(
        SoundDataset, sound.AudioFiles, sound.SUFFIXES, sound.AudioRows, sound.COLUMNS, {"tones": sound.Tones}
    ),
    "shape": MediaReader(
        ShapeDataset, shapes.Meshes, shapes.SUFFIXES, shapes.VoxelRows, shapes.COLUMNS, {"solids": shapes.Solids}
    ),
}
"""The readers of all modalities except images, whose sources are in `tokbench.data`."""


def open_dataset(
    data: str,
    protocol: Protocol,
    size: int | None = None,
    limit: int | None = None,
    root: Path | None = None,
    reading: ReadOptions = DEFAULTS,
) -> Dataset:
    """Open the dataset `data`: a folder name in `datasets/`, or a path to images, videos, recordings or shapes.

    The arguments and errors are those of `tokbench.data.dataset.open_dataset`, which opens images. size: the side of
    images and frames in pixels, samples a second of recordings, or voxels per side of shapes. A folder of files of
    several modalities is refused with a DataError, except that a folder that contains images has images.
    """
    found = modality_of(data, root, reading)
    if found == "image":
        return images.open_dataset(data, protocol, size, limit, root, reading)
    reader, folders, path = READERS[found], dataset_folders(root), Path(data).expanduser()
    if data in folders:
        if reading.split or reading.column:
            raise UsageError(
                f"dataset {data} is one split already, as its dataset.toml states; omit --split and --column"
            )
        return _named(data, folders[data], reader, protocol, size, limit)
    name = slug(path.resolve().name)
    if path.suffix == ".parquet":
        source = reader.rows(path, {"split": reading.split} if reading.split else None, None)
    elif reading.split:
        raise UsageError(f"--split selects rows of a Parquet file; give the folder of the split of {data} instead")
    else:
        source = reader.files(path)
    split = f"-{slug(canonical_split(reading.split))}" if reading.split else ""
    sampling = even_sample(source, limit, reading.first)
    opened = reader.dataset(f"{name}{split}-{fingerprint(source)}", source, protocol, size, limit, sampling=sampling)
    opened.check_sizes()
    return opened


def modality_of(data: str, root: Path | None = None, reading: ReadOptions = DEFAULTS) -> Modality:
    """Return the modality of a dataset by its name, of a file by its suffix or columns, of a folder by the files below
    it.

    Everything that is not of another modality counts as images, and so does a path with a requested column. The search
    in a folder ends with the first image.
    Raises DataError for a folder of several modalities.
    """
    if data in (folders := dataset_folders(root)):
        modality: Modality = describe(folders[data]).get("modality", "image")
        return modality
    if not is_path(data) or reading.column:
        return "image"
    path = Path(data).expanduser()
    if not path.is_dir():
        return "image" if is_pattern(data) and not path.exists() else _modality_of_file(path)
    found: dict[Modality, str] = {}
    for where, inner, files in os.walk(path):
        inner[:] = [one for one in inner if not is_hidden(one)]
        for file in files:
            if is_image(file):
                return "image"
            if not is_hidden(file) and (kind := _modality_of_suffix(file)) is not None:
                found.setdefault(kind, os.path.join(where, file))
    if len(found) > 1:
        raise DataError(
            f"{data} contains files of several kinds ({', '.join(found.values())}); give a folder of one kind"
        )
    return next(iter(found), "image")


def _modality_of_suffix(name: str) -> Modality | None:
    suffix = os.path.splitext(name)[1].lower()
    return next((modality for modality, reader in READERS.items() if suffix in reader.suffixes), None)


def _modality_of_file(path: Path) -> Modality:
    if path.suffix.lower() != ".parquet" or not path.is_file():
        return _modality_of_suffix(path.name) or "image"
    import pyarrow.parquet as pq

    try:
        names = set(pq.read_schema(path).names)
    except Exception:  # the reader of images states what is wrong
        return "image"
    return next((modality for modality, reader in READERS.items() if names >= set(reader.columns)), "image")


def _named(
    name: str, folder: Path, reader: MediaReader, protocol: Protocol, size: int | None, limit: int | None
) -> Dataset:
    description = describe(folder)
    if recipe := description.get("recipe"):
        if recipe not in reader.recipes:
            raise DataError(f"no recipe {recipe!r} of synthetic data; there are: {', '.join(reader.recipes)}")
        source = reader.recipes[recipe](description["split"], description["count"])
    else:
        stored = description.get("folder", name)
        paths = locate(stored, description)
        if not paths:
            sources = " or ".join(description["sources"])
            places = ", ".join(str(place) for place in search_folders(stored))
            raise DataError(
                f"dataset {name} is not on this machine: looked for {sources} in {places}; {description['get']}"
            )
        source = reader.rows(paths[0], description.get("where"), description.get("label"))
    count = description["count"]
    if len(source.names) != count:
        raise DataError(
            f"dataset {name} should contain {count} items, but has {len(source.names)}: an incomplete copy?"
        )
    own_size = description["size"]
    opened = reader.dataset(name, source, protocol, size or own_size, limit, native_size=own_size)
    opened.check_sizes()
    return opened
