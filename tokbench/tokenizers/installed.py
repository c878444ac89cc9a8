"""What is installed: files that a version describes, and the distributions that they belong to, with their versions."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import sysconfig
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from tokbench.paths import PACKAGE

_TOKBENCH = str(PACKAGE) + os.sep
_STANDARD = tuple({os.path.realpath(sysconfig.get_path(key)) + os.sep for key in ("stdlib", "platstdlib")})
_INSTALLED = tuple({sysconfig.get_path(key) + os.sep for key in ("purelib", "platlib")})
_SITES = ("site-packages", "dist-packages")


def is_tokbench(file: str) -> bool:
    """Whether a file is tokbench's own."""
    return file.startswith(_TOKBENCH)


@lru_cache(maxsize=65536)
def is_standard(file: str) -> bool:
    """Whether a file is of the standard library."""
    return not is_installed(file) and (file.startswith(_STANDARD) or os.path.realpath(file).startswith(_STANDARD))


def is_installed(file: str) -> bool:
    """Whether a file lies where packages are installed."""
    return any(f"{os.sep}{folder}{os.sep}" in file for folder in _SITES) or file.startswith(_INSTALLED)


@lru_cache(maxsize=4096)
def distributions(top: str, file: str) -> dict[str, str]:
    """The distribution, and its version, that an installed module belongs to. Empty where it belongs to none."""
    try:
        likely = metadata.distribution(top)
        if _lies_in(file, likely):
            return {likely.metadata["Name"]: _version(likely)}
    except (metadata.PackageNotFoundError, ValueError):
        pass
    known = _by_top_level(tuple(sys.path)).get(top, [])
    found = [metadata.distribution(name) for name in dict.fromkeys(known)]
    found = [one for one in found if _lies_in(file, one)]
    if len(found) > 1:  # a namespace that several share
        found = [
            one for one in found if any(Path(str(one.locate_file(part))) == Path(file) for part in one.files or ())
        ]
    return {one.metadata["Name"]: _version(one) for one in found}


def _lies_in(file: str, one: metadata.Distribution) -> bool:
    """Whether a file lies in the folder that a distribution was installed into: another copy of it is other code."""
    place = str(one.locate_file(""))
    return Path(file).is_relative_to(place) or Path(os.path.realpath(file)).is_relative_to(os.path.realpath(place))


def _version(one: metadata.Distribution) -> str:
    """The version, and for what pip did not install from an index also what tells builds of one version apart: the
    commit, the archive's hash, or a hash over the hashes of the installed files."""
    try:
        told = json.loads(one.read_text("direct_url.json") or "{}")
        if told.get("dir_info", {}).get("editable"):  # its files lie elsewhere, and are hashed there
            return one.version
        archive = told.get("archive_info", {})
        commit = told.get("vcs_info", {}).get("commit_id")
        known = commit or archive.get("hash") or next(iter(archive.get("hashes", {}).values()), None)
    except (OSError, ValueError, AttributeError):
        return one.version
    if not told:
        return one.version
    return f"{one.version} ({known})" if isinstance(known, str) else f"{one.version}{_recorded(one)}"


def _recorded(one: metadata.Distribution) -> str:
    """A hash over the names and hashes of a distribution's modules in its RECORD; empty where it lists none."""
    listed = sorted(
        f"{file.as_posix()} {file.hash.value}" for file in one.files or () if file.hash and file.suffix != ".pyc"
        and not file.parent.name.endswith(".dist-info")
    )  # fmt: skip
    return f" (files {hashlib.sha256(chr(10).join(listed).encode()).hexdigest()})" if listed else ""


@lru_cache(maxsize=2)
def _by_top_level(path: tuple[str, ...]) -> dict[str, list[str]]:
    return {top: list(names) for top, names in metadata.packages_distributions().items()}
