"""Lists folders recursively, and reads the images below a folder as a source.

Hidden and system entries below the folder are ignored (`tokbench.data.sources.base.is_hidden`). The folder itself may
be hidden.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tokbench.data.decode import MAGIC_BYTES, refuse_large, size_of
from tokbench.data.sources import archive, arrow, npz, parquet
from tokbench.data.sources.base import (
    CLASSES_FILE,
    MAX_CLASSES_BYTES,
    Source,
    describe_files,
    is_hidden,
    is_image,
    is_left_out,
    printable_name,
)
from tokbench.data.sources.unread import NUMBERED, UNREAD
from tokbench.errors import DataError, UnreadableImage

_LEAVES = "a link that leaves the dataset's folder, which is not followed; give --follow-links if you trust it"

KINDS = {
    ".parquet": ("Parquet file", parquet.holds_images),
    ".arrow": ("Arrow file", arrow.holds_images),
    ".zip": ("zip file", archive.zip_holds_images),
    ".npz": ("npz file", npz.holds_images),
} | dict.fromkeys(archive.SUFFIXES, ("tar file", archive.tar_holds_images))
"""Files that can contain many images, by suffix: their name in messages, and a function that checks with little reading
whether a file does contain images."""

KINDS |= UNREAD

_MAX_CHECKED = 100
"""Number of files of each kind whose content is checked for images: folders may have an .npz beside every image."""


_MAX_OTHERS = 100_000
"""Number of other files that are listed, for the message that a folder contains no images."""


def kind_of(name: str) -> str | None:
    """Return the key of KINDS for a file that may contain many images; None for other files.

    Shard numbers are ignored: `x.tfrecord-00000-of-00010` has the kind `.tfrecord`. A numbered name without a suffix
    has the kind NUMBERED, because it may be a TFRecord file.
    """
    stem = _NUMBERED.sub("", name.lower())
    kind = next((suffix for suffix in KINDS if suffix != NUMBERED and stem.endswith(suffix)), None)
    return kind or (NUMBERED if len(stem) < len(name) else None)


_NUMBERED = re.compile(r"-\d+-of-\d+$")


@dataclass
class FolderListing:
    """The files below a folder, with names relative to it.

    images: (name, file, reason why it cannot be read, or ""). Unreadable folders are included, because they may contain
    images. packed: (name, file) of files that may contain many images. left_out: names of files that look like images
    but are not read. others: names of the first of all other files. hidden: whether there are hidden entries.
    """

    root: Path
    images: list[tuple[str, Path, str]] = field(default_factory=list)
    packed: list[tuple[str, Path]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    hidden: bool = False

    @property
    def pictures(self) -> list[str]:
        """Names of the image files."""
        return [name for name, _, _ in self.images if is_image(name)]

    @property
    def candidates(self) -> list[tuple[str, Path]]:
        """The packed files that may be the dataset: if there are no pictures, only supported ones, if there are any."""
        supported = [entry for entry in self.packed if kind_of(entry[0]) not in UNREAD]
        return supported if supported and not self.pictures else self.packed

    def packed_with_images(self) -> list[tuple[str, Path]]:
        """Return the candidates that contain images.

        Only the first files of each kind are checked. The others are included if one of the checked files is.
        """
        checked: Counter[str] = Counter()
        kinds_with_images: set[str] = set()
        result = []
        for name, file in self.candidates:
            kind = kind_of(name) or ""
            checked[kind] += 1
            if KINDS[kind][1](file) if checked[kind] <= _MAX_CHECKED else kind in kinds_with_images:
                kinds_with_images.add(kind)
                result.append((name, file))
        return result


def list_folder(root: Path, follow_links: bool) -> FolderListing:
    """Return the files below a folder. Raises DataError if the folder itself cannot be listed."""
    listing = FolderListing(root.resolve())
    _walk(listing, [("", listing.root)], follow_links)
    return _sorted(listing)


def list_paths(root: Path, names: Iterable[str], follow_links: bool) -> FolderListing:
    """Return the given files below a folder, and all files below the given folders.

    As in `list_folder`, links to folders inside the root are not descended.
    """
    listing, folders = FolderListing(root.resolve()), []
    linked = {"": False}  # for each parent folder, whether its path contains a link to a folder inside the root
    for name in names:
        parent = name.rpartition("/")[0]
        if parent not in linked:
            linked[parent] = _is_linked_inside(listing.root, parent)
        if is_hidden(name) or linked[parent]:
            continue
        if _add_entry(listing, name, listing.root / name, follow_links):
            folders.append((f"{name}/", listing.root / name))
    _walk(listing, folders, follow_links)
    # A pattern may match both a folder and files in it.
    listing.images = list({entry[0]: entry for entry in listing.images}.values())
    listing.packed, listing.left_out = list(dict(listing.packed).items()), list(dict.fromkeys(listing.left_out))
    return _sorted(listing)


def _is_linked_inside(root: Path, name: str) -> bool:
    """Return whether the path of a folder below `root` contains a link, and its target is below `root` as well."""
    folder = root / name
    return folder.resolve() != folder and folder.resolve().is_relative_to(root)


def _sorted(listing: FolderListing) -> FolderListing:
    listing.images.sort(key=lambda entry: entry[0])
    listing.packed.sort()
    listing.left_out.sort()
    return listing


def _walk(listing: FolderListing, pending: list[tuple[str, Path]], follow_links: bool) -> None:
    """Add the files below the pending folders, given as (prefix of names, folder). No folder is listed twice."""
    seen = set()
    while pending:
        prefix, folder = pending.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:  # a cycle of links, or two links to the same folder
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            if not prefix:
                raise DataError(f"{folder} cannot be listed ({error.strerror}); check its permissions") from error
            reason = f"a folder that cannot be listed ({error.strerror}); check its permissions"
            listing.images.append((printable_name(prefix), folder, reason))
            continue
        for entry in entries:
            if is_hidden(entry.name):
                listing.hidden = True
            elif _add_entry(listing, prefix + entry.name, entry, follow_links):
                pending.append((f"{prefix}{entry.name}/", folder / entry.name))


def _add_entry(listing: FolderListing, name: str, entry: os.DirEntry[str] | Path, follow_links: bool) -> bool:
    """Add one entry to the listing. Return True, without adding it, if it is a folder that must be descended."""
    mode, inside = _mode(entry, listing.root)
    file = Path(entry)
    reason = "" if inside or follow_links else _LEAVES
    if stat.S_ISDIR(mode):
        if reason:
            listing.images.append((printable_name(name), file, reason))
        # Images below a link to a folder inside the root are listed under their own names.
        return not reason and not (entry.is_symlink() and inside)
    if is_image(name):
        reason = reason or ("" if stat.S_ISREG(mode) else "not a regular file, or a broken link; remove it")
        listing.images.append((printable_name(name), file, reason))
    elif stat.S_ISREG(mode) and is_left_out(name, lambda: b"" if reason else _head(file)):
        listing.left_out.append(printable_name(name))
    elif stat.S_ISREG(mode) and kind_of(name):
        listing.packed.append((printable_name(name), file))
    elif stat.S_ISREG(mode) and len(listing.others) < _MAX_OTHERS:
        listing.others.append(printable_name(name))
    return False


def _mode(entry: os.DirEntry[str] | Path, root: Path) -> tuple[int, bool]:
    """Return the file type (folder, file or 0) of an entry or its link target, and whether that is below `root`."""
    if isinstance(entry, os.DirEntry) and not entry.is_symlink():
        return stat.S_IFDIR if entry.is_dir() else stat.S_IFREG if entry.is_file() else 0, True
    try:
        return stat.S_IFMT(entry.stat().st_mode), Path(entry).resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # broken links and cycles; some versions of pathlib raise RuntimeError for cycles
        return 0, True


def _head(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(MAGIC_BYTES)
    except OSError:
        return b""


class Folder(Source):
    """The image files below a folder, or of a listing, sorted by relative path."""

    sorted_by_name = True

    def __init__(self, path: Path | FolderListing, follow_links: bool = False) -> None:
        listing = path if isinstance(path, FolderListing) else list_folder(path, follow_links)
        self._files = [(file, reason) for _, file, reason in listing.images]
        self.names = [name for name, _, _ in listing.images]
        self.left_out_names = listing.left_out
        self.instead = "" if self.names else _content(listing)
        self._root = listing.root

    def read(self, position: int) -> bytes:
        file = self._file(position)
        try:
            refuse_large(file.stat().st_size, self.names[position])
            return file.read_bytes()
        except OSError as error:
            raise self._unreadable(position, error) from error

    def listing(self) -> list[tuple[str, int]]:
        return [(name, _file_size(self._files[self._at(i)][0])) for i, name in enumerate(self.names)]

    def size(self, position: int) -> tuple[int, int]:
        try:
            with self._file(position).open("rb") as file:
                return size_of(file.read(65536), self.names[position])
        except (OSError, UnreadableImage):  # some headers are longer than 64 KiB
            return super().size(position)

    def class_list(self, folder: str) -> bytes | None:
        return read_class_list(self._root / folder / CLASSES_FILE)

    def _file(self, position: int) -> Path:
        file, reason = self._files[self._at(position)]
        if reason:
            raise UnreadableImage(f"{self.names[position]}: {reason}")
        return file

    def _unreadable(self, position: int, error: OSError) -> UnreadableImage:
        vanished = isinstance(error, FileNotFoundError)
        remedy = "it existed when the run began" if vanished else "check its permissions"
        return UnreadableImage(f"{self.names[position]}: cannot be read ({error.strerror}); {remedy}")


def _content(listing: FolderListing) -> str:
    """Return what a folder without images contains, and what to give instead."""
    if not listing.packed and not listing.others:
        return (
            "" if listing.left_out else f"nothing{' but hidden entries, which are not read' if listing.hidden else ''}"
        )
    kinds = [f"{described} without images" for described in count_kinds(name for name, _ in listing.packed)]
    text = ", ".join([*kinds, *([describe_files(listing.others)] if listing.others else [])])
    lists = [name for name in listing.others if name.lower().endswith((".txt", ".npy"))]
    if len(lists) == 1:
        what = "if it lists the paths of images" if lists[0].lower().endswith(".txt") else "if it is an array of images"
        text += f"; {what}, give --data {shlex.quote(str(listing.root / lists[0]))}"
    return text


def read_class_list(file: Path) -> bytes | None:
    """Return the content of a `classes.txt`; None if there is no such file. Raises DataError if it cannot be read."""
    try:
        if not file.is_file():
            return None
        if file.stat().st_size > MAX_CLASSES_BYTES:
            raise DataError(f"{file} has more than {MAX_CLASSES_BYTES:,} bytes, the limit for a list of classes")
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror})") from error


def _file_size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # the file vanished, or is a broken link; reading it will report the error
        return 0


def count_kinds(names: Iterable[str]) -> Iterator[str]:
    """Yield descriptions of packed files by kind, such as "4 Parquet files" or "1 zip file"."""
    for noun, count in Counter(KINDS[kind_of(name) or ""][0] for name in names).items():
        yield f"{count:,} {noun}{'s' if count > 1 else ''}"
