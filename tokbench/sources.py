"""Where images come from: a folder, a zip, a tar, Parquet files, a manifest. Names in order, read by position."""

from __future__ import annotations

import csv
import hashlib
import re
import sys
import tarfile
import zipfile
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tokbench.errors import BadImage, DataError
from tokbench.image import SUFFIXES, open_rgb, size_of

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")


def _is_image(name: str) -> bool:
    path = Path(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(("._", "."))


class Source(ABC):
    """Images by position. `names` are relative paths, in the order in which they are read."""

    names: list[str]

    @abstractmethod
    def read(self, position: int) -> bytes:
        """The file's bytes. Raises BadImage where it cannot be read."""

    @abstractmethod
    def listing(self) -> list[tuple[str, int]]:
        """(name, bytes) of what lies there: the cheap fingerprint of a dataset that has no name of its own."""

    def open(self, position: int) -> Image.Image:
        """The decoded RGB image. Raises BadImage."""
        return open_rgb(self.read(position), self.names[position])

    def size(self, position: int) -> tuple[int, int]:
        """Width and height. Raises BadImage."""
        return size_of(self.read(position), self.names[position])

    def reorder(self, positions: Sequence[int]) -> None:
        """Take the images in this order from now on."""
        self._order = list(positions)
        self.names = [self.names[p] for p in positions]

    def _at(self, position: int) -> int:
        order: list[int] | None = getattr(self, "_order", None)
        return order[position] if order else position


class Folder(Source):
    """Every image file below a folder, by sorted relative path."""

    def __init__(self, path: Path) -> None:
        found = [file for file in path.rglob("*") if file.is_file() and _is_image(file.name)]
        self._files = sorted(found, key=lambda file: file.relative_to(path).as_posix())
        self.names = [file.relative_to(path).as_posix() for file in self._files]

    def read(self, position: int) -> bytes:
        try:
            return self._files[self._at(position)].read_bytes()
        except OSError as error:
            raise BadImage(f"{self.names[position]}: cannot be read ({error.strerror})") from error

    def listing(self) -> list[tuple[str, int]]:
        return [(name, self._files[self._at(i)].stat().st_size) for i, name in enumerate(self.names)]

    def size(self, position: int) -> tuple[int, int]:
        try:
            with self._files[self._at(position)].open("rb") as file:
                return size_of(file.read(65536), self.names[position])
        except (OSError, BadImage):  # some headers lie deeper than 64 KiB
            return super().size(position)


class Zip(Source):
    """The images in a zip file, by sorted name."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{path} is not a readable zip file ({error})") from error
        self._infos = sorted(
            (i for i in self._zip.infolist() if not i.is_dir() and _is_image(i.filename)), key=lambda i: i.filename
        )
        self.names = [info.filename for info in self._infos]

    def read(self, position: int) -> bytes:
        try:
            return self._zip.read(self._infos[self._at(position)])
        except Exception as error:  # zlib, CRC, encryption and format errors have no common class
            raise BadImage(f"{self.names[position]}: cannot be read from the zip ({error})") from error

    def listing(self) -> list[tuple[str, int]]:
        return [(name, self._infos[self._at(i)].file_size) for i, name in enumerate(self.names)]


class Tar(Source):
    """The images in a tar file (compressed or not), by sorted name."""

    def __init__(self, path: Path) -> None:
        try:
            self._tar = tarfile.open(path)  # noqa: SIM115 - read from as long as the source lives
            self._members = [m for m in self._tar.getmembers() if m.isfile() and _is_image(m.name)]
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(f"{path} is not a readable tar file ({error})") from error
        self._members.sort(key=lambda member: member.name)
        self.names = [member.name for member in self._members]

    def read(self, position: int) -> bytes:
        try:
            file = self._tar.extractfile(self._members[self._at(position)])
            assert file is not None  # only regular files were listed
            return file.read()
        except (tarfile.TarError, OSError, EOFError) as error:
            raise BadImage(f"{self.names[position]}: cannot be read from the tar ({error})") from error

    def listing(self) -> list[tuple[str, int]]:
        return [(name, self._members[self._at(i)].size) for i, name in enumerate(self.names)]


class Parquet(Source):
    """The rows of Parquet files with a column `image: {bytes, path}`, in file order."""

    def __init__(self, paths: Sequence[Path]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._files: list[pq.ParquetFile] = []
        self._groups: list[tuple[int, int]] = []  # (file, row group) of each block
        self._starts: list[int] = []  # first position of each block
        self.names = []
        self._sizes: list[tuple[str, int]] = []
        for path in paths:
            try:
                file = pq.ParquetFile(path)
                columns = file.schema_arrow
                kind = columns.field("image").type if "image" in columns.names else None
                if kind is None or not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
                    raise DataError(
                        f"{path} has no column image: {{bytes, path}}; its columns are {', '.join(columns.names)}"
                    )
                has_path = kind.get_field_index("path") >= 0
                for group in range(file.num_row_groups):
                    self._starts.append(len(self.names))
                    self._groups.append((len(self._files), group))
                    rows = file.metadata.row_group(group).num_rows
                    listed = (
                        [
                            row and row["path"]
                            for row in file.read_row_group(group, columns=["image.path"])["image"].to_pylist()
                        ]
                        if has_path
                        else [None] * rows
                    )
                    first = len(self.names)
                    self.names += [name or f"{first + i:08d}" for i, name in enumerate(listed)]
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{path} is not a readable Parquet file ({str(error)[:200]})") from error
            self._files.append(file)
            self._sizes.append((path.name, path.stat().st_size))
        self._held: tuple[int, object] | None = None

    def read(self, position: int) -> bytes:
        import pyarrow as pa

        row = self._at(position)
        block = bisect_right(self._starts, row) - 1
        if self._held is None or self._held[0] != block:
            file, group = self._groups[block]
            try:
                table = self._files[file].read_row_group(group, columns=["image.bytes"])
            except (pa.ArrowException, OSError) as error:
                raise BadImage(f"{self.names[position]}: cannot be read from Parquet ({str(error)[:120]})") from error
            self._held = (block, table["image"])
        entry = self._held[1][row - self._starts[block]].as_py()  # type: ignore[index]
        data = entry and entry["bytes"]
        if data is None:
            raise BadImage(f"{self.names[position]}: this Parquet row holds no bytes")
        return bytes(data)

    def listing(self) -> list[tuple[str, int]]:
        return self._sizes


class Manifest(Source):
    """Images that a CSV lists: crops of photos inside installed wheels, and files beside it; every one hash-checked.

    Columns: name, source (`wheel:package/path` or `file:path`), box (left,top,right,bottom or empty), sha256 of the
    RGB pixels, licence, credit.
    """

    def __init__(self, path: Path) -> None:
        try:
            with path.open(newline="", encoding="utf-8") as file:
                self._rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path} is not a readable manifest ({error})") from error
        if any(row.get(key) is None for row in self._rows for key in ("name", "source", "box", "sha256")):
            raise DataError(f"{path}: every row must give name, source, box and sha256")
        self.names = [row["name"] for row in self._rows]
        self._folder = path.parent
        self._held: tuple[str, Image.Image] | None = None

    def _locate(self, source: str, name: str) -> Path:
        kind, _, inside = source.partition(":")
        places = [self._folder] if kind == "file" else [Path(entry) for entry in sys.path if entry]
        for place in places:
            if (place / inside).is_file():
                return place / inside
        package = inside.split("/")[0]
        remedy = f"install the package that ships {package}/" if kind == "wheel" else "restore the dataset's folder"
        raise BadImage(f"{name}: {inside} is not here; {remedy}")

    def read(self, position: int) -> bytes:
        row = self._rows[self._at(position)]
        return self._locate(row["source"], row["name"]).read_bytes()

    def open(self, position: int) -> Image.Image:
        row = self._rows[self._at(position)]
        if self._held is None or self._held[0] != row["source"]:  # neighbouring crops share a photo
            self._held = (row["source"], super().open(position))
        whole = self._held[1]
        image = whole
        if row["box"]:
            left, top, right, bottom = (int(edge) for edge in row["box"].split(","))
            image = whole.crop((left, top, right, bottom))
        if hashlib.sha256(np.asarray(image).tobytes()).hexdigest() != row["sha256"]:
            raise BadImage(f"{row['name']}: its pixels are not those of the manifest ({row['source']} was changed)")
        return image

    def size(self, position: int) -> tuple[int, int]:
        return self.open(position).size

    def listing(self) -> list[tuple[str, int]]:
        return [(row["sha256"], 0) for row in self._rows]


def open_source(path: Path) -> Source:
    """The source that a path is: folder, zip, tar or Parquet file. Raises DataError for anything else."""
    return open_sources([path])


def open_sources(paths: Sequence[Path]) -> Source:
    """One source over several paths (Parquet shards), or over one path of any form."""
    first = paths[0]
    if all(path.suffix == ".parquet" for path in paths):
        return Parquet(paths)
    if len(paths) > 1:
        raise DataError(f"several files of which not all are Parquet: {', '.join(path.name for path in paths[:5])}")
    if first.is_dir():
        shards = sorted(first.glob("*.parquet"))
        folder = Folder(first)
        return Parquet(shards) if shards and not folder.names else folder
    if first.suffix.lower() == ".zip":
        return Zip(first)
    if first.name.lower().endswith(ARCHIVES):
        return Tar(first)
    if first.is_file():
        raise DataError(f"{first} is neither a folder nor a zip, tar or Parquet file")
    raise DataError(f"no such file or folder: {first}")


def sort_by(source: Source, pattern: str) -> None:
    """Order a source by the first group of a regular expression in its names; digits sort as numbers."""
    keys = []
    for name in source.names:
        match = re.search(pattern, name)
        if match is None:
            raise DataError(f"{name}: its name does not match the dataset's order rule {pattern!r}")
        key = match.group(1)
        keys.append((0, int(key), "") if key.isdigit() else (1, 0, key))
    source.reorder(sorted(range(len(keys)), key=keys.__getitem__))
