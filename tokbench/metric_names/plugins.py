"""PluginRegistry: tokbench's own entries by name, and those that other packages add through an entry-point group."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points, packages_distributions, version
from typing import Any, Protocol, TypeVar

from tokbench.errors import UsageError

OWN = "tokbench"


class Entry(Protocol):
    """An entry of a registry: a spec with a name and the path `module:Class` of the class that it describes."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str: ...

    def refuse_invalid(self) -> None:
        """Raise UsageError if the spec cannot be registered."""


T = TypeVar("T", bound=Entry)


@dataclass(frozen=True)
class Package:
    """A distribution and its version. The version is empty for code that belongs to no distribution."""

    name: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.version}".rstrip()


@dataclass(frozen=True)
class BrokenPlugin:
    """An entry point that could not be loaded or registered, with its package and the reason."""

    name: str
    package: Package
    reason: str

    def __str__(self) -> str:
        return f"package {self.package}: {self.reason}"


class PluginRegistry(Mapping[str, T]):
    """Entries by name: tokbench's own, then those of entry points, then those registered in this process.

    The entry points are loaded when the registry is first read. An entry point that fails is recorded in `broken`; the
    other entries stay available. An entry cannot replace an entry of tokbench or of another package.
    """

    def __init__(self, what: str, group: str, kind: type[T], builtin: Iterable[T]) -> None:
        """Create a registry with tokbench's own entries.

        what: the kind of entry for messages, such as `metric`. group: the entry-point group. kind: the class of the
        entries; each entry point refers to one entry or to a list of entries.
        """
        self.what, self.group, self._kind = what, group, kind
        self._entries: dict[str, T] = {entry.name: entry for entry in builtin}
        self._own = frozenset(self._entries)
        self._packages: dict[str, Package] = dict.fromkeys(self._entries, Package(OWN))
        self._classes: dict[str, Any] = {}
        self._broken: list[BrokenPlugin] = []
        self._loaded = False
        self.listeners: list[Callable[[], None]] = []
        """Functions that are called after every change, to invalidate values derived from the entries."""
        self.checks: list[Callable[[T], None]] = []
        """Functions that are called with every new entry. They raise UsageError if it conflicts with another entry."""

    def __getitem__(self, name: str) -> T:
        self._load()
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        self._load()
        return len(self._entries)

    @property
    def broken(self) -> tuple[BrokenPlugin, ...]:
        """The entry points that could not be loaded."""
        self._load()
        return tuple(self._broken)

    def is_builtin(self, name: str) -> bool:
        """Return whether an entry belongs to tokbench."""
        return name in self._own

    def package(self, name: str) -> Package:
        """Return the package to which an entry belongs. Raises KeyError if there is no such entry."""
        self._load()
        return self._packages[name]

    def register(self, entry: T, cls: Any = None, package: Package | None = None) -> None:
        """Add an entry.

        cls: its class, if `path` does not name an importable class. package: the package that adds the entry, if it
        differs from the package of `path`.
        Registering the same class again replaces its entry. Raises UsageError if the spec is invalid, or if its name
        belongs to tokbench or to another class.
        """
        self._load()
        self._add(entry, package or self._package_of(entry), cls)

    def unregister(self, name: str) -> None:
        """Remove a registered entry. Raises UsageError for an entry of tokbench, KeyError if there is no such entry."""
        if self.is_builtin(name):
            raise UsageError(f"the {self.what} '{name}' belongs to tokbench and cannot be removed")
        for held in (self._entries, self._packages):
            del held[name]
        self._classes.pop(name, None)
        self._changed()

    def reload(self) -> None:
        """Remove all entries of other packages. The entry points are loaded again at the next access.

        This is for processes during which packages are installed or removed.
        """
        for held in (self._entries, self._packages, self._classes):
            for name in held.keys() - self._own:
                del held[name]
        self._broken.clear()
        self._loaded = False
        self._changed()

    def load_class(self, name: str) -> Any:
        """Import and return the class of an entry. Any exception of its module is raised."""
        entry = self[name]
        if name in self._classes:
            return self._classes[name]
        module, _, attribute = entry.path.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def refusal(self, name: str) -> str | None:
        """Return why the entry point of this name could not be loaded, or None if no such entry point failed."""
        return next((str(one) for one in self.broken if one.name == name), None)

    def _add(self, entry: T, package: Package, cls: Any = None) -> None:
        entry.refuse_invalid()
        if (held := self._entries.get(entry.name)) is not None and (
            self.is_builtin(entry.name) or held.path != entry.path
        ):
            owner = self._packages[entry.name]
            raise UsageError(
                f"package {package} cannot register the {self.what} '{entry.name}': the name belongs to "
                f"{'tokbench itself' if entry.name in self._own else f'package {owner}'}; give it another name"
            )
        try:
            for check in self.checks:
                check(entry)
        except UsageError as error:
            raise UsageError(f"package {package} cannot register the {self.what} '{entry.name}': {error}") from error
        self._entries[entry.name], self._packages[entry.name] = entry, package
        if cls is not None:
            self._classes[entry.name] = cls
        self._changed()

    def _changed(self) -> None:
        for listener in self.listeners:
            listener()

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True  # set first, because a package may register an entry while it is imported
        for point in sorted(
            entry_points(group=self.group), key=lambda one: (one.dist.name if one.dist else "", one.name)
        ):
            package = Package(point.dist.name, point.dist.version) if point.dist else Package(point.value)
            try:
                for entry in self._entries_of(point):
                    self._add(entry, package)
            except UsageError as error:
                self._broken.append(BrokenPlugin(point.name, package, str(error)))
            except Exception as error:  # the code of another package may raise any exception
                reason = f"{point.value} cannot be loaded ({type(error).__name__}: {str(error)[:300]})"
                self._broken.append(BrokenPlugin(point.name, package, reason))

    def _entries_of(self, point: EntryPoint) -> list[T]:
        found = point.load()
        entries = [found] if isinstance(found, self._kind) else list(found) if isinstance(found, list | tuple) else []
        if not entries or not all(isinstance(entry, self._kind) for entry in entries):
            raise UsageError(f"{point.value} is neither a {self._kind.__name__} nor a list of them")
        return entries

    @staticmethod
    def _package_of(entry: T) -> Package:
        top = entry.path.partition(":")[0].partition(".")[0]
        if names := packages_distributions().get(top):
            return Package(names[0], version(names[0]))
        return Package(top)
