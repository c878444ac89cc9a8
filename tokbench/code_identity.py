"""Which code a tokenizer's numbers depend on beside its own folder: other modules by content, packages by version.

A module counts as installed where it lies in site-packages (or dist-packages) and belongs to a distribution: the
version then says what it holds. Every other module outside the standard library and tokbench itself may be edited at
any time, editable installs included, so its files are hashed. Modules are found in three ways, and nothing is
imported to find them:

- the import statements of the code, functions included, followed through every file that is not installed (of a
  package that is not installed, through the parts that were imported);
- the modules that appeared while the adapter was loaded, which covers names that are made up at run time;
- the files of the classes of a model and of all its submodules.

A package that is not installed counts as a whole, since it may import its parts by name.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from tokbench.imports import imported_names

ADAPTER = "tokbench_adapter_"
"""How the modules of adapter folders are called. The rest of such a name depends on where the folder lies."""

_TOKBENCH = str(Path(__file__).resolve().parent) + os.sep
_STANDARD = tuple({os.path.realpath(sysconfig.get_path(key)) + os.sep for key in ("stdlib", "platstdlib")})
_INSTALLED = tuple({sysconfig.get_path(key) + os.sep for key in ("purelib", "platlib")})
_SITES = ("site-packages", "dist-packages")
_SUFFIXES = (".py", *EXTENSION_SUFFIXES)


@dataclass(frozen=True)
class CodeIdentity:
    """modules: top-level name -> sha256 over its files, of what is not installed. packages: distribution -> version.
    changed: modules whose files changed after this process had imported them; `modules` has the hashes from before, for
    that is what runs."""

    modules: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    changed: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class _Module:
    """Where a module lies. file: None for a namespace package; folders: where submodules of a package are."""

    name: str
    file: str | None
    folders: tuple[str, ...] = ()


_DIGESTS: WeakKeyDictionary[ModuleType, str] = WeakKeyDictionary()
"""The sha256 of each imported module's file when it was first seen here, right after its import: a later edit of the
file changes nothing in this process."""


def identify(names: Mapping[str, str], appeared: Iterable[str] = (), covered: Sequence[Path] = ()) -> CodeIdentity:
    """The identity of the code that some modules consist of and import.

    names: the modules to start with, each with its file, which may be empty where the import system knows it. appeared:
    further modules, of which those that are not installed count. covered: folders whose files other hashes cover
    already; what they import counts. Modules that cannot be found are left out: code that needs them would have failed.
    """
    return _Search([folder.resolve() for folder in covered], names).run(appeared)


def modules_of(model: Any) -> dict[str, str]:
    """The modules that define the classes of a model, of its attributes and of all their submodules, as `identify`
    takes them, and the modules and functions among the attributes."""
    from torch import nn

    held = [model, *vars(model).values()] if hasattr(model, "__dict__") else [model]
    kinds, found = {type(part) for part in held}, dict[str, str]()
    for part in held:
        if isinstance(part, nn.Module):
            kinds.update(type(module) for module in part.modules())
        elif isinstance(part, ModuleType):
            found[part.__name__] = ""
        elif isinstance(part, FunctionType | type):
            found[part.__module__] = ""
    for kind in {base for own in kinds for base in own.__mro__}:
        name = getattr(kind, "__module__", None)
        if isinstance(name, str):
            found[name] = found.get(name) or _file_of(kind, name)
    return found


def _file_of(kind: type, module: str) -> str:
    """The file of a class whose module was loaded by its path and is not among the imported ones; empty for others."""
    if module in sys.modules:
        return ""
    methods = [part for part in vars(kind).values() if isinstance(part, FunctionType)]
    files = [method.__code__.co_filename for method in methods if method.__module__ == module]
    return next((file for file in files if os.path.isfile(file)), "")


class _Search:
    def __init__(self, covered: Sequence[Path], names: Mapping[str, str]) -> None:
        self.covered, self.names = covered, names
        self.located: dict[str, _Module | None] = {
            name: _Module(name, os.path.abspath(file)) for name, file in names.items() if file
        }
        self.files: dict[str, dict[str, _File]] = {}
        self.packages: dict[str, str] = {}
        self.walked: set[str] = set()

    def run(self, appeared: Iterable[str]) -> CodeIdentity:
        waiting, seen = [*self.names, *filter(self.at_hand, appeared)], set[str]()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            parent = name.rpartition(".")[0]
            if parent:
                waiting.append(parent)  # importing a module runs the packages around it
                around = self.locate(parent)
                if around is not None and around.file and not self.may_change(around):
                    continue
            module = self.locate(name)
            if module is None or module.file is None:
                continue
            if self.may_change(module):
                whole = not self.is_covered(module.file) and self.take(module)
                top = name.partition(".")[0]
                # All parts of a package are hashed. Those that were not imported with it can be thousands, too many to
                # be parsed: an editable install of a large library.
                if whole and top in sys.modules and name not in sys.modules and name not in self.names:
                    continue
                imports = imported_names(name, bool(module.folders), module.file)
                waiting += imports.at_once
                waiting += [later for later in imports.later if not (whole and f"{later}.".startswith(f"{top}."))]
            elif not _is_standard(module.file) and not module.file.startswith(_TOKBENCH):
                self.packages |= _distributions(name.partition(".")[0], module.file)
        changed: list[str] = []
        modules = {top: _digest(files, changed) for top, files in sorted(self.files.items())}
        return CodeIdentity(modules, dict(sorted(self.packages.items())), tuple(sorted(changed)))

    def locate(self, name: str) -> _Module | None:
        if name not in self.located:
            try:
                self.located[name] = self.find(name)
            except Exception:  # other people's finders and lazy modules: anything may come
                self.located[name] = None
        return self.located[name]

    def find(self, name: str) -> _Module | None:
        if (loaded := sys.modules.get(name)) is not None:
            told = vars(loaded)
            file, folders = told.get("__file__"), told.get("__path__") or ()
            return _Module(name, os.path.abspath(file) if file else None, tuple(map(str, folders)))
        parent = name.rpartition(".")[0]
        if parent:
            around = self.locate(parent)
            spec = PathFinder.find_spec(name, list(around.folders)) if around and around.folders else None
        else:
            spec = importlib.util.find_spec(name)  # of a top-level name, this imports nothing
        if spec is None:
            return None
        file = os.path.abspath(spec.origin) if spec.origin and spec.has_location else None
        return _Module(name, file, tuple(spec.submodule_search_locations or ()))

    def may_change(self, module: _Module) -> bool:
        """Whether no version says what the file holds."""
        file = module.file or ""
        if _is_standard(file) or file.startswith(_TOKBENCH):
            return False
        return (
            not _is_installed(file) or self.is_covered(file) or not _distributions(module.name.partition(".")[0], file)
        )

    def is_covered(self, file: str) -> bool:
        return any(Path(file).resolve().is_relative_to(folder) for folder in self.covered)

    def at_hand(self, name: str) -> bool:
        """Whether a module that appeared counts: installed ones bring many others, which differ with what was loaded
        before."""
        module = self.locate(name)
        if module is None or module.file is None or name.startswith(ADAPTER):
            return False
        file = module.file
        return not (_is_standard(file) or _is_installed(file) or file.startswith(_TOKBENCH))

    def take(self, module: _Module) -> bool:
        """Note the file of a module, or all files of the outermost package around it that has code of its own; whether
        there is such a package."""
        parts = module.name.split(".")
        chain = (self.locate(".".join(parts[:count])) for count in range(1, len(parts) + 1))
        outer = next(part for part in chain if part is not None and part.file is not None)
        foreign = parts[0].startswith(ADAPTER) and outer.folders
        called = f"adapters/{Path(outer.folders[0]).name}" if foreign else parts[0]
        files = self.files.setdefault(called, {})
        if outer.name not in self.walked:
            self.walked.add(outer.name)
            for folder in outer.folders:
                files |= {file: _File(outer.name, os.path.relpath(file, folder)) for file in _tree(folder)}
        files.setdefault(module.file or "", _File(module.name, os.path.basename(module.file or "")))
        return bool(outer.folders)


@dataclass(frozen=True)
class _File:
    """A file of a package, by its place in the package's folder, or the file of a module without one."""

    module: str
    inside: str

    @property
    def label(self) -> str:
        """The same wherever the code lies."""
        return f"{self.module.partition('.')[2] if self.module.startswith(ADAPTER) else self.module} {self.inside}"

    def names(self) -> Iterator[str]:
        """The names under which it may have been imported."""
        parts = [*os.path.dirname(self.inside).split(os.sep), os.path.basename(self.inside).partition(".")[0]]
        yield self.module
        yield ".".join([self.module, *(part for part in parts if part not in ("", "__init__"))])


@lru_cache(maxsize=65536)
def _is_standard(file: str) -> bool:
    return not _is_installed(file) and (file.startswith(_STANDARD) or os.path.realpath(file).startswith(_STANDARD))


def _is_installed(file: str) -> bool:
    return any(f"{os.sep}{folder}{os.sep}" in file for folder in _SITES) or file.startswith(_INSTALLED)


def _tree(folder: str) -> Iterator[str]:
    """The code in a package's folder. Folders without code hold data, often a lot, and are not looked into."""
    for place, below, names in os.walk(folder):
        code = [name for name in names if name.endswith(_SUFFIXES)]
        below[:] = [name for name in below if name.isidentifier() and name != "__pycache__"] if code else []
        yield from (os.path.join(place, name) for name in code)


def _digest(files: dict[str, _File], changed: list[str]) -> str:
    """sha256 over the names and contents of files; those that changed after their import are added to `changed`."""
    digest = hashlib.sha256()
    for file, told in sorted(files.items(), key=lambda item: (item[1].label, item[0])):
        content = _content(file)
        if (loaded := _loaded_from(file, told)) is not None:
            first = _DIGESTS.setdefault(loaded, content)
            if first != content:
                changed.append(loaded.__name__)
            content = first
        digest.update(f"{told.label} {content}\n".encode())
    return digest.hexdigest()


def _loaded_from(file: str, told: _File) -> ModuleType | None:
    for name in told.names():
        loaded = sys.modules.get(name)
        if isinstance(loaded, ModuleType) and (own := vars(loaded).get("__file__")) and os.path.abspath(own) == file:
            return loaded
    return None


def _content(file: str) -> str:
    """The sha256 of a file, of the archive that it lies in, or a word for one that vanished or cannot be read."""
    path = Path(file)
    try:
        path = next((place for place in (path, *path.parents) if place.exists()), path)
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError:
        return "unreadable"


@lru_cache(maxsize=4096)
def _distributions(top: str, file: str) -> dict[str, str]:
    """The distribution, and its version, that an installed module belongs to. Empty where it belongs to none."""
    try:
        likely = metadata.distribution(top)
        if Path(file).is_relative_to(str(likely.locate_file(""))):
            return {likely.metadata["Name"]: likely.version}
    except (metadata.PackageNotFoundError, ValueError):
        pass
    known = _by_top_level(tuple(sys.path)).get(top, [])
    found = [metadata.distribution(name) for name in dict.fromkeys(known)]
    if len(found) > 1:  # a namespace that several share
        found = [
            one for one in found if any(Path(str(one.locate_file(part))) == Path(file) for part in one.files or ())
        ]
    return {one.metadata["Name"]: one.version for one in found}


@lru_cache(maxsize=2)
def _by_top_level(path: tuple[str, ...]) -> dict[str, list[str]]:
    return {top: list(names) for top, names in metadata.packages_distributions().items()}
