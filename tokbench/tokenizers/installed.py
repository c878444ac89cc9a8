"""Installed files: the distributions that they belong to, and the versions of these."""

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
    """Return whether a file belongs to tokbench."""
    return file.startswith(_TOKBENCH)


@lru_cache(maxsize=65536)
def is_standard(file: str) -> bool:
    """Return whether a file belongs to the standard library."""
    return not is_installed(file) and (file.startswith(_STANDARD) or os.path.realpath(file).startswith(_STANDARD))


def is_installed(file: str) -> bool:
    """Return whether a file lies in a folder for installed packages."""
    return any(f"{os.sep}{folder}{os.sep}" in file for folder in _SITES) or file.startswith(_INSTALLED)


@lru_cache(maxsize=4096)
def distributions(top: str, file: str) -> dict[str, str]:
    """Return the distribution that an installed module belongs to, with its version. Empty if it belongs to none.

    top: the top-level name of the module. Several distributions are returned only if they share the file.
    """
    try:
        likely = metadata.distribution(top)
        if _lies_in(file, likely):
            return {likely.metadata["Name"]: _version(likely)}
    except (metadata.PackageNotFoundError, ValueError):
        pass
    known = _by_top_level(tuple(sys.path)).get(top, [])
    owners = [metadata.distribution(name) for name in dict.fromkeys(known)]
    owners = [distribution for distribution in owners if _lies_in(file, distribution)]
    if len(owners) > 1:  # several distributions share a namespace package
        owners = [
            distribution
            for distribution in owners
            if any(Path(str(distribution.locate_file(part))) == Path(file) for part in distribution.files or ())
        ]
    return {distribution.metadata["Name"]: _version(distribution) for distribution in owners}


def _lies_in(file: str, distribution: metadata.Distribution) -> bool:
    """Return whether a file lies in the folder into which a distribution was installed. A copy elsewhere is different
    code."""
    place = str(distribution.locate_file(""))
    return Path(file).is_relative_to(place) or Path(os.path.realpath(file)).is_relative_to(os.path.realpath(place))


def _version(distribution: metadata.Distribution) -> str:
    """Return the version of a distribution. Where pip did not install it from an index, add what identifies the build:
    the commit, the archive's hash, or a hash over the hashes of the installed files."""
    try:
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
        if origin.get("dir_info", {}).get("editable"):  # the files outside site-packages are hashed
            return distribution.version
        archive = origin.get("archive_info", {})
        commit = origin.get("vcs_info", {}).get("commit_id")
        build = commit or archive.get("hash") or next(iter(archive.get("hashes", {}).values()), None)
    except (OSError, ValueError, AttributeError):
        return distribution.version
    if not origin:
        return distribution.version
    return (
        f"{distribution.version} ({build})"
        if isinstance(build, str)
        else f"{distribution.version}{_hash_of_record(distribution)}"
    )


def _hash_of_record(package: metadata.Distribution) -> str:
    """Return a hash over the names and hashes of the modules in a distribution's RECORD; "" if it lists none."""
    listed = sorted(
        f"{file.as_posix()} {file.hash.value}" for file in package.files or () if file.hash and file.suffix != ".pyc"
        and not file.parent.name.endswith(".dist-info")
    )  # fmt: skip
    return f" (files {hashlib.sha256(chr(10).join(listed).encode()).hexdigest()})" if listed else ""


@lru_cache(maxsize=2)
def _by_top_level(path: tuple[str, ...]) -> dict[str, list[str]]:
    return {top: list(names) for top, names in metadata.packages_distributions().items()}
