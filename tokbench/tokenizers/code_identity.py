"""Which code a tokenizer's numbers depend on beside its own folder: other modules by content, packages by version.

A module counts as installed where it lies in site-packages (or dist-packages) and belongs to a distribution: the
version, and for what did not come from an index its commit or hash, then says what it holds. Every other module outside
the standard library and tokbench itself may be edited at any time, editable installs included, so its files are hashed.
Modules are found in three ways, and nothing is imported to find them:

- the import statements of the code, functions included, followed through every file that is not installed (of a
  package that is not installed, through the parts that were imported);
- the modules that appeared while the adapter was loaded, which covers names that are made up at run time;
- the objects that a model and the globals of such code hold: the files of their classes and functions.

A package that is not installed counts as a whole, since it may import its parts by name.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from tokbench.tokenizers.held_code import Place, Walk
from tokbench.tokenizers.imports import imported_names
from tokbench.tokenizers.installed import distributions, is_installed, is_standard, is_tokbench

ADAPTER = "tokbench_adapter_"
"""How the modules of adapter folders are called. The rest of such a name depends on where the folder lies."""

_SUFFIXES = (".py", ".pyc", *EXTENSION_SUFFIXES)


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


def identify(
    names: Iterable[str] = (), model: Any = None, appeared: Iterable[str] = (), covered: Sequence[Path] = ()
) -> CodeIdentity:
    """The identity of the code that some modules, and a model, consist of and import.

    names: the modules to start with. appeared: further modules, of which those that are not installed count. covered:
    folders whose Python files other hashes cover already; what they import counts. Modules that cannot be found are
    left out: code that needs them would have failed.
    """
    return _Search([folder.resolve() for folder in covered], set(names)).run(model, appeared)


class _Search:
    def __init__(self, covered: Sequence[Path], names: set[str]) -> None:
        self.covered, self.names = covered, names
        self.located: dict[str, _Module | None] = {}
        self.files: dict[str, dict[str, _File]] = {}
        self.packages: dict[str, str] = {}
        self.walked: set[str] = set()
        self.seen: set[str] = set()
        self.walk = Walk(self.place)

    def run(self, model: Any, appeared: Iterable[str]) -> CodeIdentity:
        if model is not None:
            self.walk.add_model(model)
            self.names |= self.walk.names
        waiting, paths = [*self.names, *filter(self.at_hand, appeared)], set[str]()
        while waiting:
            while waiting:
                name = waiting.pop()
                if name not in self.seen:
                    self.seen.add(name)
                    waiting += self.follow(name)
            for file in self.walk.by_path.keys() - paths:
                paths.add(file)
                waiting += self.follow_path(file, self.walk.by_path[file])
            waiting += self.walk.names - self.seen
        changed: list[str] = []
        modules = {top: _digest(files, changed) for top, files in sorted(self.files.items())}
        return CodeIdentity(modules, dict(sorted(self.packages.items())), tuple(sorted(changed)))

    def follow(self, name: str) -> list[str]:
        """Take in a module by its name; the modules that it leads to."""
        found, parent = list[str](), name.rpartition(".")[0]
        if parent:
            found.append(parent)  # importing a module runs the packages around it
            around = self.locate(parent)
            if around is not None and around.file and not self.may_change(around):
                return found
        module = self.locate(name)
        if module is None or module.file is None:
            return found
        if not self.may_change(module):
            if not is_standard(module.file) and not is_tokbench(module.file):
                self.packages |= distributions(name.partition(".")[0], module.file)
            return found
        whole = not self.is_covered(module.file) and self.take(module)
        top = name.partition(".")[0]
        # All parts of a package are hashed. Those that were not imported with it can be thousands, too many to be
        # parsed: an editable install of a large library.
        if whole and top in sys.modules and name not in sys.modules and name not in self.names:
            return found
        if isinstance(loaded := sys.modules.get(name), ModuleType):
            self.walk.add_module(loaded, self.place(name, module.file))
        imports = imported_names(name, bool(module.folders), module.file)
        found += imports.at_once
        return found + [later for later in imports.later if not (whole and f"{later}.".startswith(f"{top}."))]

    def follow_path(self, file: str, name: str) -> list[str]:
        """Take in a file that was loaded by its path, under a name that does not lead to it."""
        if not self.is_covered(file):
            label = name if name.startswith(ADAPTER) else name.partition(".")[0]
            self.files.setdefault(label, {}).setdefault(file, _File(name, os.path.basename(file)))
        imports = imported_names(name, False, file)
        return [*imports.at_once, *imports.later]

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
            spec = _below(name, list(around.folders)) if around and around.folders else None
        else:
            spec = importlib.util.find_spec(name)  # of a top-level name, this imports nothing
        if spec is None:
            return None
        file = os.path.abspath(spec.origin) if spec.origin and spec.has_location else None
        return _Module(name, file, tuple(spec.submodule_search_locations or ()))

    def may_change(self, module: _Module) -> bool:
        """Whether no version says what the file holds."""
        file = module.file or ""
        if is_standard(file) or is_tokbench(file):
            return False
        return not is_installed(file) or self.is_own(file) or not distributions(module.name.partition(".")[0], file)

    def place(self, name: str, file: str) -> Place:
        if not self.may_change(_Module(name, file)):
            return Place.FIXED
        return Place.OWN if self.is_own(file) else Place.SHARED

    def is_own(self, file: str) -> bool:
        return any(Path(file).resolve().is_relative_to(folder) for folder in self.covered)

    def is_covered(self, file: str) -> bool:
        """Whether the hash over the Python files of a folder covers it: it holds no compiled code and no archives."""
        return file.endswith(".py") and os.path.isfile(file) and self.is_own(file)

    def at_hand(self, name: str) -> bool:
        """Whether a module that appeared counts: installed ones bring many others, which differ with what was loaded
        before."""
        module = self.locate(name)
        if module is None or module.file is None or name.startswith(ADAPTER):
            return False
        file = module.file
        return not (is_standard(file) or is_installed(file) or is_tokbench(file))

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
                parts_of_it = {file: _File(outer.name, os.path.relpath(file, folder)) for file in _tree(folder)}
                files |= {file: told for file, told in parts_of_it.items() if not self.is_covered(file)}
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


def _below(name: str, folders: list[str]) -> ModuleSpec | None:
    """Where a module in a package with these folders lies. PathFinder knows a namespace package inside another only
    once the outer one was imported."""
    spaces = ModuleSpec(name, None, is_package=True)
    for folder in folders:
        finder = pkgutil.get_importer(folder)
        spec = finder.find_spec(name) if finder is not None else None
        if spec is not None and spec.loader is not None:
            return spec
        if spec is not None and spec.submodule_search_locations:
            assert spaces.submodule_search_locations is not None
            spaces.submodule_search_locations += spec.submodule_search_locations
    others = (finder for finder in sys.meta_path if finder is not PathFinder)  # of editable installs
    found = (finder.find_spec(name, folders) for finder in others)
    return spaces if spaces.submodule_search_locations else next((spec for spec in found if spec is not None), None)


def _tree(folder: str) -> Iterator[str]:
    """The code in a package's folder. Folders without code hold data, often a lot, and are not looked into."""
    for place, below, names in os.walk(folder):
        code = [name for name in names if name.endswith(_SUFFIXES)]
        code = [name for name in code if not (name.endswith(".pyc") and name[:-1] in code)]
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
