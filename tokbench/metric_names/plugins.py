"""PluginRegistry: entries of tokbench by name, and those that other packages add through an entry-point group."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points, packages_distributions, version
from typing import Any, Protocol, TypeVar

from tokbench.errors import UsageError

OWN = "tokbench"


class Entry(Protocol):
    """What a registry holds: a spec with a name and the path `module:Class` of what it describes."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str: ...

    def refuse_invalid(self) -> None:
        """Raises UsageError where the spec cannot be registered."""


T = TypeVar("T", bound=Entry)


@dataclass(frozen=True)
class Package:
    """A distribution and its version; the version is empty where code that belongs to none has registered an entry."""

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

    The entry points are loaded when the registry is first read. One that fails is kept in `broken` and costs only its
    own entries. No entry replaces one of tokbench or of another package.
    """

    def __init__(self, what: str, group: str, kind: type[T], builtin: Iterable[T]) -> None:
        """what: `metric`, for messages. group: of entry points, each of which gives a `kind` or several of them."""
        self.what, self.group, self._kind = what, group, kind
        self._entries: dict[str, T] = {entry.name: entry for entry in builtin}
        self._own = frozenset(self._entries)
        self._packages: dict[str, Package] = dict.fromkeys(self._entries, Package(OWN))
        self._classes: dict[str, Any] = {}
        self._broken: list[BrokenPlugin] = []
        self._loaded = False
        self.listeners: list[Callable[[], None]] = []
        """Called after every change, so that what was derived from the entries is derived again."""
        self.checks: list[Callable[[T], None]] = []
        """Called with every new entry; each raises UsageError where the entry collides with another one."""

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
        """Whether an entry is tokbench's own."""
        return name in self._own

    def package(self, name: str) -> Package:
        """The package that an entry belongs to. Raises KeyError where there is no such entry."""
        self._load()
        return self._packages[name]

    def register(self, entry: T, cls: Any = None, package: Package | None = None) -> None:
        """Add an entry. cls: its class, where `path` does not name an importable one.

        Registering the same class again replaces its entry. Raises UsageError where the spec is invalid, or its name
        belongs to tokbench or to another class.
        """
        self._load()
        self._add(entry, package or self._package_of(entry), cls)

    def unregister(self, name: str) -> None:
        """Remove an entry that was registered. Raises UsageError for one of tokbench's own, KeyError for none."""
        if self.is_builtin(name):
            raise UsageError(f"the {self.what} '{name}' is tokbench's own")
        for held in (self._entries, self._packages):
            del held[name]
        self._classes.pop(name, None)
        self._changed()

    def reload(self) -> None:
        """Forget everything that other packages added, and read the entry points again when they are next needed: for
        a process during which packages were installed or removed."""
        for held in (self._entries, self._packages, self._classes):
            for name in held.keys() - self._own:
                del held[name]
        self._broken.clear()
        self._loaded = False
        self._changed()

    def load_class(self, name: str) -> Any:
        """The class of an entry. Its module is imported here, so any exception of that module may come."""
        entry = self[name]
        if name in self._classes:
            return self._classes[name]
        module, _, attribute = entry.path.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def refusal(self, name: str) -> str | None:
        """Why there is no entry of a name that a broken entry point announced; None where none did."""
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
        self._loaded = True  # first, since a package may register an entry while it is imported
        for point in sorted(
            entry_points(group=self.group), key=lambda one: (one.dist.name if one.dist else "", one.name)
        ):
            package = Package(point.dist.name, point.dist.version) if point.dist else Package(point.value)
            try:
                for entry in self._entries_of(point):
                    self._add(entry, package)
            except UsageError as error:
                self._broken.append(BrokenPlugin(point.name, package, str(error)))
            except Exception as error:  # other people's code: anything may come
                reason = f"{point.value} cannot be loaded ({type(error).__name__}: {str(error)[:300]})"
                self._broken.append(BrokenPlugin(point.name, package, reason))

    def _entries_of(self, point: EntryPoint) -> list[T]:
        found = point.load()
        entries = [found] if isinstance(found, self._kind) else list(found) if isinstance(found, list | tuple) else []
        if not entries or not all(isinstance(entry, self._kind) for entry in entries):
            raise UsageError(f"{point.value} is no {self._kind.__name__} and no list of them")
        return entries

    @staticmethod
    def _package_of(entry: T) -> Package:
        top = entry.path.partition(":")[0].partition(".")[0]
        if names := packages_distributions().get(top):
            return Package(names[0], version(names[0]))
        return Package(top)
