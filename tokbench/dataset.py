"""Dataset: named or by path, read in a fixed order, prepared as the protocol says, hashed as it goes."""

from __future__ import annotations

import difflib
import hashlib
import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokbench.errors import BadImage, DataError, UsageError
from tokbench.pixels import from_bytes
from tokbench.plugins import dataset_folders, slug
from tokbench.prepare import prepare
from tokbench.protocol import Protocol
from tokbench.sources import Manifest, Source, open_source, open_sources, sort_by
from tokbench.weights import cache_dir


@dataclass(frozen=True)
class Images:
    """What a dataset yields: positions (B,), names, and the prepared images, float32 (B, 3, H, W) in [0, 1].

    original: the whole files, each (1, 3, h, w), where the protocol compares with them.
    """

    index: Tensor
    names: list[str]
    reference: Tensor
    original: list[Tensor] | None = None


@dataclass
class Dataset:
    """Images in a fixed order under one protocol.

    After (and during) a pass: `bad` lists unreadable images as (name, reason), `enlarged` counts images smaller than
    `size`, `sha256` hashes the prepared pixels of all images read, in order.
    """

    name: str
    source: Source
    protocol: Protocol
    size: int | None
    limit: int | None = None
    own_size: int | None = None
    bad: list[tuple[str, str]] = field(default_factory=list)
    enlarged: int = 0
    shape: tuple[int, int] | None = None
    _digest: Any = field(default_factory=hashlib.sha256, repr=False)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError("--limit must be at least 1")
        if self.size is not None and self.size < 1:
            raise UsageError("--size must be at least 1")
        if not self.source.names:
            raise DataError(f"{self.name}: no images found")

    def __len__(self) -> int:
        return min(self.limit or len(self.source.names), len(self.source.names))

    @property
    def names(self) -> list[str]:
        """The names of the images that a pass reads."""
        return self.source.names[: len(self)]

    @property
    def sha256(self) -> str:
        digest: str = self._digest.hexdigest()
        return digest

    def check_sizes(self) -> None:
        """Where no size is given, all images must have one. Reads headers only. Raises DataError naming two."""
        if self.size is not None:
            return
        first: tuple[str, tuple[int, int]] | None = None
        for position, name in enumerate(self.names):
            try:
                size = self.source.size(position)
            except BadImage:
                continue  # the pass itself lists it
            if first is None:
                first = (name, size)
            elif size != first[1]:
                remedy = "give --size S to bring them all to S x S"
                if self.protocol.crop == "none":
                    remedy = f"protocol {self.protocol.name} takes images as they are; choose one that crops"
                raise DataError(
                    f"{self.name} holds images of unequal sizes ({first[0]} is {first[1][0]}x{first[1][1]}, "
                    f"{name} is {size[0]}x{size[1]}); {remedy}"
                )

    def batches(self, batch_size: int) -> Iterator[Images]:
        """The images, `batch_size` at a time (the last batch may be smaller). Unreadable ones go to `bad`."""
        self.bad.clear()
        self.enlarged, self.shape, self._digest = 0, None, hashlib.sha256()
        held: list[_Prepared] = []
        for position, name in enumerate(self.names):
            try:
                held.append(self._prepare(position))
            except BadImage as error:
                self.bad.append((name, str(error)))
            if len(held) == batch_size:
                yield self._batch(held)
                held = []
        if held:
            yield self._batch(held)

    def _prepare(self, position: int) -> _Prepared:
        name, image = self.source.names[position], self.source.open(position)
        pixels, enlarged = prepare(image, self.size, self.protocol)
        if self.shape is None:
            self.shape = (pixels.shape[0], pixels.shape[1])
        elif pixels.shape[:2] != self.shape:
            raise BadImage(f"{name}: changed its size during the run")
        self.enlarged += enlarged
        original = np.array(image) if self.protocol.reference == "original" else None
        for part in (pixels,) if original is None else (pixels, original):
            self._digest.update(repr(part.shape).encode())
            self._digest.update(np.ascontiguousarray(part).tobytes())
        return _Prepared(position, name, pixels, original)

    @staticmethod
    def _batch(held: list[_Prepared]) -> Images:
        return Images(
            torch.tensor([one.position for one in held]),
            [one.name for one in held],
            _tensor(np.stack([one.pixels for one in held])),
            [_tensor(one.original[None]) for one in held if one.original is not None] or None,
        )


@dataclass(frozen=True)
class _Prepared:
    position: int
    name: str
    pixels: np.ndarray
    original: np.ndarray | None


def _tensor(pixels: np.ndarray) -> Tensor:
    """Levels (B, H, W, 3) to float32 (B, 3, H, W) in [0, 1]."""
    return from_bytes(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous())


def open_dataset(
    data: str, protocol: Protocol, size: int | None = None, limit: int | None = None, root: Path | None = None
) -> Dataset:
    """The dataset that `data` names (a folder in `datasets/`, or a path to images), not yet read.

    Raises UsageError for an unknown name, DataError where its images are not on this machine or do not fit together.
    """
    folders = dataset_folders(root)
    if data in folders:
        dataset = _named(data, folders[data], protocol, size, limit)
    elif Path(data).expanduser().exists():
        path = Path(data).expanduser()
        source = open_source(path)
        name = f"{slug(path.resolve().name)}-{_fingerprint(source)}"
        dataset = Dataset(name, source, protocol, size, limit, own_size=None)
    else:
        near = difflib.get_close_matches(data, folders, 1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise UsageError(
            f"no dataset or path '{data}'; {hint}datasets here: {', '.join(sorted(folders)) or 'none (give --root)'}"
        )
    dataset.check_sizes()
    return dataset


def _named(name: str, folder: Path, protocol: Protocol, size: int | None, limit: int | None) -> Dataset:
    described = describe(folder)
    if manifest := described.get("manifest"):
        source: Source = Manifest(folder / manifest)
    else:
        paths = locate(name, described)
        if not paths:
            looked = ", ".join(str(place) for place in places(name))
            raise DataError(
                f"dataset {name} is not on this machine: looked for {' or '.join(described['sources'])} in {looked}; "
                f"{described['get']}"
            )
        source = open_sources(paths)
        if described["order"] != "listed":
            sort_by(source, described["order"])
    count = described["count"]
    if len(source.names) != count:
        raise DataError(
            f"dataset {name} should hold {count} images and {len(source.names)} are here: an incomplete copy?"
        )
    return Dataset(name, source, protocol, size or described["size"], limit, own_size=described["size"])


def describe(folder: Path) -> dict[str, Any]:
    """A dataset folder's dataset.toml. Raises DataError where a key is missing."""
    try:
        described = tomllib.loads((folder / "dataset.toml").read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{folder}/dataset.toml cannot be read ({error})") from error
    needed = {"title", "size", "count", "get", "licence"} | (set() if "manifest" in described else {"sources", "order"})
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


def _fingerprint(source: Source) -> str:
    return hashlib.sha256(repr(source.listing()).encode()).hexdigest()[:6]
