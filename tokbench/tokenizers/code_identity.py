"""Identity of the code that a tokenizer's numbers depend on outside its own folder: modules are identified by content,
packages by version.

A module counts as installed if it lies in site-packages (or dist-packages) and belongs to a distribution. Its
version then identifies its content; a distribution that was not installed from an index is identified by its commit or
hash, too. Every other module outside the standard library and tokbench can be edited at any time (editable installs
included), so its files are hashed. Modules are found in three ways, and no module is imported in order to find it:

- import statements in the code, inside functions too, are followed through every file that is not installed (through a
  package that is not installed only along the parts that were imported);
- modules that were imported while the adapter was loaded are included, which covers names that are built at run time;
- objects held by the model and by the globals of such code are searched for the files of their classes and functions.

All files of a package that is not installed are hashed, since it may import its parts by name.
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
"""The prefix of the names of modules in adapter folders. The rest of such a name depends on the location of the folder.
"""

_SUFFIXES = (".py", ".pyc", *EXTENSION_SUFFIXES)


@dataclass(frozen=True)
class CodeIdentity:
    """The hashes and versions of the code that is used.

    modules: top-level name -> sha256 over the files of a module that is not installed. packages: distribution ->
    version. changed: modules whose files changed after this process had imported them; `modules` then holds the earlier
    hashes, since the earlier code is what runs.
    """

    modules: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    changed: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class _Module:
    """The location of a module. file: None for a namespace package. folders: the folders that hold a package's
    submodules."""

    name: str
    file: str | None
    folders: tuple[str, ...] = ()


_DIGESTS: WeakKeyDictionary[ModuleType, str] = WeakKeyDictionary()
"""The sha256 of each imported module's file right after its import. A later edit of the file changes nothing in this
process."""


def identify(
    names: Iterable[str] = (), model: Any = None, appeared: Iterable[str] = (), covered: Sequence[Path] = ()
) -> CodeIdentity:
    """Return the identity of the code that some modules and a model consist of and import.

    names: the modules to start with. model: the model whose objects are searched, or None. appeared: further imported
    modules, of which only those that are not installed count. covered: folders whose Python files are covered by other
    hashes; only what these files import counts. Modules that cannot be found are left out, since code that needs them
    would have failed.
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
        pending, known_paths = [*self.names, *filter(self.is_editable, appeared)], set[str]()
        while pending:
            while pending:
                name = pending.pop()
                if name not in self.seen:
                    self.seen.add(name)
                    pending += self.follow(name)
            for path in self.walk.by_path.keys() - known_paths:
                known_paths.add(path)
                pending += self.follow_path(path, self.walk.by_path[path])
            pending += self.walk.names - self.seen
        changed: list[str] = []
        modules = {top: _digest(files, changed) for top, files in sorted(self.files.items())}
        return CodeIdentity(modules, dict(sorted(self.packages.items())), tuple(sorted(changed)))

    def follow(self, name: str) -> list[str]:
        """Add a module by its name. Returns the names of the modules that it leads to."""
        reached, parent = list[str](), name.rpartition(".")[0]
        if parent:
            reached.append(parent)  # importing a module also runs the packages that contain it
            enclosing = self.locate(parent)
            if enclosing is not None and enclosing.file and not self.may_change(enclosing):
                return reached
        module = self.locate(name)
        if module is None or module.file is None:
            return reached
        if not self.may_change(module):
            if not is_standard(module.file) and not is_tokbench(module.file):
                self.packages |= distributions(name.partition(".")[0], module.file)
            return reached
        whole = not self.is_covered(module.file) and self.add_files(module)
        top = name.partition(".")[0]
        # All files of a package are hashed. The files that were not imported are not parsed: a large library in an
        # editable install can have thousands of them.
        if whole and top in sys.modules and name not in sys.modules and name not in self.names:
            return reached
        if isinstance(loaded := sys.modules.get(name), ModuleType):
            self.walk.add_module(loaded, self.place(name, module.file))
        imports = imported_names(name, bool(module.folders), module.file)
        reached += imports.at_once
        return reached + [later for later in imports.later if not (whole and f"{later}.".startswith(f"{top}."))]

    def follow_path(self, file: str, name: str) -> list[str]:
        """Add a file that was loaded by its path, under a name that does not lead to it. Returns the names of what it
        imports."""
        if not self.is_covered(file):
            label = name if name.startswith(ADAPTER) else name.partition(".")[0]
            self.files.setdefault(label, {}).setdefault(file, _File(name, os.path.basename(file)))
        imports = imported_names(name, False, file)
        return [*imports.at_once, *imports.later]

    def locate(self, name: str) -> _Module | None:
        if name not in self.located:
            try:
                self.located[name] = self.find(name)
            except Exception:  # third-party import finders and lazy modules may raise any exception
                self.located[name] = None
        return self.located[name]

    def find(self, name: str) -> _Module | None:
        if (loaded := sys.modules.get(name)) is not None:
            namespace = vars(loaded)
            file, folders = namespace.get("__file__"), namespace.get("__path__") or ()
            return _Module(name, os.path.abspath(file) if file else None, tuple(map(str, folders)))
        parent = name.rpartition(".")[0]
        if parent:
            enclosing = self.locate(parent)
            spec = _below(name, list(enclosing.folders)) if enclosing and enclosing.folders else None
        else:
            spec = importlib.util.find_spec(name)  # for a top-level name, this imports nothing
        if spec is None:
            return None
        file = os.path.abspath(spec.origin) if spec.origin and spec.has_location else None
        return _Module(name, file, tuple(spec.submodule_search_locations or ()))

    def may_change(self, module: _Module) -> bool:
        """Return whether the file can change without a change of any version."""
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
        """Return whether the hash over the Python files of a folder covers this file. Compiled code and archives are
        not covered."""
        return file.endswith(".py") and os.path.isfile(file) and self.is_own(file)

    def is_editable(self, name: str) -> bool:
        """Return whether an imported module counts. Installed modules do not: which of them are imported depends on
        what was loaded before."""
        module = self.locate(name)
        if module is None or module.file is None or name.startswith(ADAPTER):
            return False
        file = module.file
        return not (is_standard(file) or is_installed(file) or is_tokbench(file))

    def add_files(self, module: _Module) -> bool:
        """Record the file of a module, or all files of the outermost package around it that has code. Returns whether
        there is such a package."""
        parts = module.name.split(".")
        chain = (self.locate(".".join(parts[:count])) for count in range(1, len(parts) + 1))
        outermost = next(part for part in chain if part is not None and part.file is not None)
        is_adapter = parts[0].startswith(ADAPTER) and outermost.folders
        label = f"adapters/{Path(outermost.folders[0]).name}" if is_adapter else parts[0]
        files = self.files.setdefault(label, {})
        if outermost.name not in self.walked:
            self.walked.add(outermost.name)
            for folder in outermost.folders:
                members = {file: _File(outermost.name, os.path.relpath(file, folder)) for file in _tree(folder)}
                files |= {file: member for file, member in members.items() if not self.is_covered(file)}
        files.setdefault(module.file or "", _File(module.name, os.path.basename(module.file or "")))
        return bool(outermost.folders)


@dataclass(frozen=True)
class _File:
    """A file of a package with its path relative to the package's folder, or the file of a module outside any
    package."""

    module: str
    inside: str

    @property
    def label(self) -> str:
        """A label that does not depend on the location of the code."""
        return f"{self.module.partition('.')[2] if self.module.startswith(ADAPTER) else self.module} {self.inside}"

    def names(self) -> Iterator[str]:
        """Yield the names under which the file may have been imported."""
        parts = [*os.path.dirname(self.inside).split(os.sep), os.path.basename(self.inside).partition(".")[0]]
        yield self.module
        yield ".".join([self.module, *(part for part in parts if part not in ("", "__init__"))])


def _below(name: str, folders: list[str]) -> ModuleSpec | None:
    """Find the spec of a module in a package with these folders. PathFinder finds a namespace package inside another
    one only after the outer one was imported."""
    namespace = ModuleSpec(name, None, is_package=True)
    for folder in folders:
        finder = pkgutil.get_importer(folder)
        spec = finder.find_spec(name) if finder is not None else None
        if spec is not None and spec.loader is not None:
            return spec
        if spec is not None and spec.submodule_search_locations:
            assert namespace.submodule_search_locations is not None
            namespace.submodule_search_locations += spec.submodule_search_locations
    others = (finder for finder in sys.meta_path if finder is not PathFinder)  # the finders of editable installs
    specs = (finder.find_spec(name, folders) for finder in others)
    return (
        namespace if namespace.submodule_search_locations else next((spec for spec in specs if spec is not None), None)
    )


def _tree(folder: str) -> Iterator[str]:
    """Yield the paths of the code files in a package's folder. Folders without code are skipped, since they often hold
    much data."""
    for place, below, names in os.walk(folder):
        code = [name for name in names if name.endswith(_SUFFIXES)]
        code = [name for name in code if not (name.endswith(".pyc") and name[:-1] in code)]
        below[:] = [name for name in below if name.isidentifier() and name != "__pycache__"] if code else []
        yield from (os.path.join(place, name) for name in code)


def _digest(files: dict[str, _File], changed: list[str]) -> str:
    """Return the sha256 over the names and contents of files. Modules that changed after their import are appended to
    `changed`."""
    digest = hashlib.sha256()
    for file, member in sorted(files.items(), key=lambda item: (item[1].label, item[0])):
        content = _content(file)
        if (loaded := _loaded_from(file, member)) is not None:
            first = _DIGESTS.setdefault(loaded, content)
            if first != content:
                changed.append(loaded.__name__)
            content = first
        digest.update(f"{member.label} {content}\n".encode())
    return digest.hexdigest()


def _loaded_from(file: str, member: _File) -> ModuleType | None:
    for name in member.names():
        loaded = sys.modules.get(name)
        if isinstance(loaded, ModuleType) and (path := vars(loaded).get("__file__")) and os.path.abspath(path) == file:
            return loaded
    return None


def _content(file: str) -> str:
    """Return the sha256 of a file, or of the archive that contains it, or "unreadable" if the file is missing or
    cannot be read."""
    path = Path(file)
    try:
        path = next((place for place in (path, *path.parents) if place.exists()), path)
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError:
        return "unreadable"
