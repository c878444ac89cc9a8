"""Images in zip and tar files. `tokbench.data.sources.open` lists what is refused."""

from __future__ import annotations

import io
import re
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path, PurePosixPath

from tokbench.data.decode import MAGIC_BYTES, refuse_large
from tokbench.data.sources.base import (
    CLASSES_FILE,
    MAX_CLASSES_BYTES,
    MAX_IMAGES,
    Source,
    describe_files,
    is_hidden,
    is_image,
    is_left_out,
    printable_name,
)
from tokbench.data.sources.lfs import refuse_pointer
from tokbench.errors import DataError, UnreadableImage
from tokbench.io.npz import METHODS, read_member

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
"""Suffixes of tar files."""

_LINK = "a link inside an archive, which is not followed; pack the file itself"

_EXTENDED = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_HEADER = 1 << 16
"""Limit on the bytes of a long name or an extended header."""


class Zip(Source):
    """The images in a zip file, sorted by name.

    The constructor raises DataError if the file is not a readable zip, or has unsafe or repeated names.
    """

    sorted_by_name = True

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except Exception as error:  # the errors of damaged zips have no common class
            refuse_pointer(path)
            raise DataError(f"{path} is not a readable zip file ({str(error)[:200]})") from error
        infos = [(_zip_name(info), info) for info in self._zip.infolist()]
        if unclear := next((info.filename for name, info in infos if "\\" in name), None):
            raise DataError(
                f"{path}: the name of its member {unclear!a} has a backslash and an unknown encoding; pack it again "
                "with names in UTF-8"
            )
        _refuse_names(path, ((name, info.filename) for name, info in infos))
        self._lists = {_folder(name): info for name, info in infos if _is_class_list(name)}
        members = sorted(
            ((printable_name(name), info) for name, info in infos if _is_member(name)), key=lambda member: member[0]
        )
        self._infos = [info for _, info in members]
        self.names = [name for name, _ in members]
        self.left_out_names = sorted(
            printable_name(name)
            for name, info in infos
            if not name.endswith("/") and is_left_out(name, partial(self._head, info))
        )
        if not self.names:
            self.instead = describe_files(name for name, _ in infos if not name.endswith("/"))
        self._lock = threading.Lock()

    def read(self, position: int) -> bytes:
        info, name = self._infos[self._at(position)], self.names[position]
        refuse_large(info.file_size, name)
        if stat.S_ISLNK(info.external_attr >> 16):
            raise UnreadableImage(f"{name}: {_LINK}")
        try:
            with self._lock:
                return read_member(self._zip, info)
        except Exception as error:  # zlib, CRC, encryption and format errors have no common class
            raise UnreadableImage(f"{name}: cannot be read from the zip ({str(error)[:200]}); pack it again") from error

    def class_list(self, folder: str) -> bytes | None:
        if (info := self._lists.get(folder)) is None:
            return None
        _check_class_list(info.filename, info.file_size, not stat.S_ISLNK(info.external_attr >> 16))
        try:
            with self._lock:
                return read_member(self._zip, info)
        except Exception as error:  # the same errors as in `read`
            raise DataError(f"{info.filename}: cannot be read from the zip ({str(error)[:200]})") from error

    def _head(self, info: zipfile.ZipInfo) -> bytes:
        try:
            if info.compress_type not in METHODS:
                return b""
            with self._zip.open(info) as member:
                return member.read(MAGIC_BYTES)
        except Exception:  # the same errors as in `read`
            return b""

    def listing(self) -> list[tuple[str, int]]:
        return [(name, self._infos[self._at(i)].file_size) for i, name in enumerate(self.names)]


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return the name of a member with `/` between folders.

    Windows PowerShell and .NET write backslashes. Names without the flag for UTF-8 are decoded as UTF-8 if they are
    valid UTF-8 (macOS does not set the flag), else as code page 437, which the format specifies. In these last names,
    backslashes are kept: in Shift JIS, GBK and Big5, they can be the second byte of a character.
    """
    name = info.filename
    if not info.flag_bits & _UTF8 and not name.isascii():
        try:
            name = name.encode("cp437").decode("utf-8")
        except UnicodeError:
            return name
    return name.replace("\\", "/")


_UTF8 = 0x800
"""The flag of a zip member whose name is UTF-8."""


def undecoded_name(name: str, encoding: str) -> str | None:
    """Return a name that was decoded as code page 437, decoded by another encoding instead; None if that fails."""
    try:
        return name.encode("cp437").decode(encoding)
    except UnicodeError:
        return None


def _is_member(name: str) -> bool:
    return not name.endswith("/") and is_image(name)


def _is_class_list(name: str) -> bool:
    return PurePosixPath(name).name == CLASSES_FILE and not name.endswith("/") and not is_hidden(name)


def _folder(name: str) -> str:
    """Return the folder of a member, "" for the root."""
    parent = str(PurePosixPath(name).parent)
    return "" if parent == "." else printable_name(parent)


def _check_class_list(name: str, size: int, regular: bool) -> None:
    if not regular or size > MAX_CLASSES_BYTES:
        reason = f"it has more than {MAX_CLASSES_BYTES:,} bytes, the limit for a list of classes" if regular else _LINK
        raise DataError(f"{name}: {reason}")


def _refuse_names(path: Path, names: Iterable[tuple[str, str]]) -> None:
    """Raise DataError if the name of a member leads outside the archive's folder or is repeated.

    names: each name as it is read, and as it is stored.
    """
    seen: set[str] = set()
    for name, stored in names:
        if name.startswith("/") or "\\" in name or re.match("[A-Za-z]:", name) or ".." in name.split("/"):
            raise DataError(f"{path}: the member {stored!a} is outside the archive's folder; pack it again without it")
        if _is_member(name) or _is_class_list(name):
            normalised = str(PurePosixPath(name))  # `./a.png` and `a.png` are the same file
            if normalised in seen:
                raise DataError(f"{path}: two members have the name {stored!a}; pack it again with one of them")
            seen.add(normalised)


class _Member(tarfile.TarInfo):
    """A validated tar header. tarfile treats a damaged header as the end of the archive and accepts negative sizes."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or (member.type in _EXTENDED and member.size > _HEADER):
            raise tarfile.InvalidHeaderError(f"a header claims {member.size} bytes")  # type: ignore[attr-defined]
        return member

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Member:
        start = archive.offset
        try:
            member = super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            if start == 0:  # the file is not a tar, or has another compression
                raise
            raise tarfile.SubsequentHeaderError(f"it is cut off or damaged: {error}") from error  # type: ignore[attr-defined]
        if member.size < 0 or archive.offset <= start:
            raise tarfile.SubsequentHeaderError("a header points backwards")  # type: ignore[attr-defined]
        return member


def _is_uncompressed(archive: tarfile.TarFile) -> bool:
    return isinstance(archive.fileobj, io.BufferedReader)


class Tar(Source):
    """The images in a tar file (compressed or not), sorted by name.

    The constructor raises DataError if the file is not a complete, readable tar, or has unsafe or repeated names.
    """

    sorted_by_name = True

    def __init__(self, path: Path) -> None:
        try:
            self._tar = tarfile.open(path, tarinfo=_Member)  # noqa: SIM115 - the source reads from it later
            members = [member for member, _ in zip(self._tar, range(MAX_IMAGES + 1), strict=False)]
            if self._tar.fileobj.read(1 << 20).strip(b"\0"):
                raise tarfile.ReadError("there are data after its end mark: it is damaged, or contains two archives")
        except Exception as error:  # errors of tarfile and of four compression modules
            refuse_pointer(path)
            raise DataError(f"{path} is not a readable tar file ({str(error)[:200]}); copy it again") from error
        if len(members) > MAX_IMAGES:
            raise DataError(f"{path} contains more than {MAX_IMAGES:,} members; split it")
        stored = (f"{member.name}/" if member.isdir() else member.name for member in members)
        _refuse_names(path, ((name, name) for name in stored))
        self._lists = {_folder(member.name): member for member in members if _is_class_list(member.name)}
        self._members = sorted(
            (member for member in members if not member.isdir() and is_image(member.name)),
            key=lambda member: printable_name(member.name),
        )
        self.names = [printable_name(member.name) for member in self._members]
        self.left_out_names = sorted(
            printable_name(member.name)
            for member in members
            if member.isreg() and is_left_out(member.name, partial(self._head, member))
        )
        if not self.names:
            self.instead = describe_files(member.name for member in members if member.isreg())
        self._lock = threading.Lock()

    def read(self, position: int) -> bytes:
        member, name = self._members[self._at(position)], self.names[position]
        refuse_large(member.size, name)
        if not member.isreg():
            reason = _LINK if member.issym() or member.islnk() else "not a regular file; remove it"
            raise UnreadableImage(f"{name}: {reason}")
        try:
            with self._lock:
                file = self._tar.extractfile(member)
                assert file is not None  # it is a regular file
                return file.read()
        except Exception as error:
            raise UnreadableImage(f"{name}: cannot be read from the tar ({str(error)[:200]}); copy it again") from error

    def class_list(self, folder: str) -> bytes | None:
        if (member := self._lists.get(folder)) is None:
            return None
        _check_class_list(member.name, member.size, member.isreg())
        try:
            with self._lock:
                file = self._tar.extractfile(member)
                assert file is not None  # it is a regular file
                return file.read()
        except Exception as error:  # the same errors as in `read`
            raise DataError(f"{member.name}: cannot be read from the tar ({str(error)[:200]})") from error

    def _head(self, member: tarfile.TarInfo) -> bytes:
        if not _is_uncompressed(self._tar):  # each backward seek would decompress it from its start
            return b""
        try:
            file = self._tar.extractfile(member)
            return file.read(MAGIC_BYTES) if file else b""
        except Exception:  # the same errors as in `read`
            return b""

    def listing(self) -> list[tuple[str, int]]:
        return [(name, self._members[self._at(i)].size) for i, name in enumerate(self.names)]


def zip_holds_images(path: Path) -> bool:
    """Return whether a zip has a member with the name of an image; True if the file cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(_is_member(_zip_name(info)) for info in archive.infolist())
    except Exception:
        return True


_MAX_SCANNED = 1 << 24
"""Limit on the bytes of a compressed tar that are unpacked to find out whether it contains images."""


def tar_holds_images(path: Path) -> bool:
    """Return whether a tar has a member with the name of an image.

    The result is True if the file cannot be read, and if a compressed tar has no image in its first 16 MiB but
    continues after them.
    """
    try:
        with tarfile.open(path, tarinfo=_Member) as archive:
            for member in archive:
                if not member.isdir() and is_image(member.name):
                    return True
                if not _is_uncompressed(archive) and member.offset_data + member.size > _MAX_SCANNED:
                    return True
        return False
    except Exception:
        return True
