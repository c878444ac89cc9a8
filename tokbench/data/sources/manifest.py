"""Images listed in a CSV file, each verified by its hash."""

from __future__ import annotations

import csv
import hashlib
import re
import sys
import threading
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from tokbench.data.decode import refuse_large
from tokbench.data.sources.base import Source, printable_name
from tokbench.errors import DataError, UnreadableImage


class Manifest(Source):
    """Images listed in a CSV file: crops of photos in installed packages, and files beside the CSV file.

    Columns: name, source (`wheel:package/path` or `file:path`), box (left,top,right,bottom in pixels, or empty), sha256
    of the RGB pixels, licence, credit. Opening an image raises UnreadableImage if its hash differs. The constructor
    raises DataError if the file is invalid.
    """

    def __init__(self, path: Path) -> None:
        try:
            with path.open(newline="", encoding="utf-8") as file:
                self._rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path} is not a readable manifest ({error})") from error
        if any(row.get(key) is None for row in self._rows for key in ("name", "source", "box", "sha256")):
            raise DataError(f"{path}: every row must give name, source, box and sha256")
        for row in self._rows:
            inside = PurePosixPath(row["source"].partition(":")[2])
            if inside.is_absolute() or ".." in inside.parts:
                raise DataError(f"{path}: {row['source']} is outside its folder")
            if row["box"] and not re.fullmatch(r"\d{1,6}(,\d{1,6}){3}", row["box"], re.ASCII):
                raise DataError(f"{path}: the box {row['box']!r} must be left,top,right,bottom")
        self.names = [printable_name(row["name"]) for row in self._rows]
        if len(set(self.names)) < len(self.names):
            raise DataError(f"{path}: two rows have the same name")
        self._folder = path.parent
        self._cached_photo: tuple[str, Image.Image] | None = None
        self._lock = threading.Lock()

    def _locate(self, source: str, name: str) -> Path:
        kind, _, inside = source.partition(":")
        folders = [self._folder] if kind == "file" else [Path(entry) for entry in sys.path if entry]
        for folder in folders:
            if (folder / inside).is_file():
                return folder / inside
        package = inside.split("/")[0]
        remedy = f"install the package that contains {package}/" if kind == "wheel" else "restore the dataset's folder"
        raise UnreadableImage(f"{name}: {inside} is missing; {remedy}")

    def read(self, position: int) -> bytes:
        row = self._rows[self._at(position)]
        file = self._locate(row["source"], row["name"])
        try:
            refuse_large(file.stat().st_size, row["name"])
            return file.read_bytes()
        except OSError as error:
            raise UnreadableImage(f"{row['name']}: {row['source']} cannot be read ({error.strerror})") from error

    def open(self, position: int) -> Image.Image:
        row = self._rows[self._at(position)]
        if row["box"]:
            with self._lock:  # consecutive crops often share a photo, which is decoded once
                cached = self._cached_photo
                if cached is None or cached[0] != row["source"]:
                    cached = self._cached_photo = (row["source"], super().open(position))
            photo = cached[1]
            left, top, right, bottom = (int(edge) for edge in row["box"].split(","))
            if not (left < right <= photo.width and top < bottom <= photo.height):
                raise UnreadableImage(
                    f"{row['name']}: its box {row['box']} is not inside {row['source']}, which was changed"
                )
            image = photo.crop((left, top, right, bottom))
        else:
            image = super().open(position)
        if hashlib.sha256(np.asarray(image).tobytes()).hexdigest() != row["sha256"]:
            raise UnreadableImage(
                f"{row['name']}: its pixels are not those of the manifest ({row['source']} was changed)"
            )
        return image

    def size(self, position: int) -> tuple[int, int]:
        return self.open(position).size

    def listing(self) -> list[tuple[str, int]]:
        return [(row["sha256"], 0) for row in self._rows]
