"""The code and the networks that objects in memory hold.

They are found by a search through the attributes of a model and the globals of its code: only the objects made from a
file that was loaded by its path show that this file was loaded.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from enum import IntEnum
from functools import partial
from itertools import islice
from pathlib import Path
from types import CellType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, NamedTuple

MAX_OBJECTS = 100_000
"""The largest number of objects that are visited for one model, the nearest ones first."""

MAX_ELEMENTS = 10_000
"""The largest number of elements that are visited in one list, tuple, set or dictionary."""

_PLAIN = frozenset({str, bytes, bytearray, int, float, complex, bool, type(None), range, slice})
_FUNCTIONS = (FunctionType, staticmethod, classmethod, property)


class Place(IntEnum):
    """Where code lies. FIXED: a version identifies it. SHARED: it can change. OWN: it can change and belongs to this
    adapter alone."""

    FIXED, SHARED, OWN = 0, 1, 2


class _Step(NamedTuple):
    """An object to visit. packages: whether its class counts even if it is installed. deep: whether the objects
    inside it are visited; this is not done for modules that adapters share, since their registries hold objects of
    other adapters."""

    held: Any
    packages: bool = False
    deep: bool = True


class Walk:
    """A search from objects to the code that they are made of. `place` maps a module's name and file to its `Place`."""

    def __init__(self, place: Callable[[str, str], Place]) -> None:
        self._place = place
        self._waiting: deque[_Step] = deque()
        self._seen: dict[int, Any] = {}  # by id; references are kept so that no id is used twice
        self._with_packages: set[int] = set()  # ids of the visited classes that count even if they are installed
        self._namespaces: dict[tuple[int, str], Place] = {}
        self._existing: dict[str, str] = {}  # file by path, "" if there is none
        self.names: set[str] = set()
        """The names under which modules are imported."""
        self.by_path: dict[str, str] = {}
        """Module name by file, if the name is not that of an imported module or if that module is a different one."""
        self.networks: list[Any] = []

    def add_model(self, model: Any) -> None:
        """Visit what a model holds. Installed packages count if they define its class, its attributes or its
        networks."""
        self._waiting.append(_Step(model, packages=True))
        self._waiting.extend(_Step(value, packages=True) for value in _attributes(model))
        self._run()

    def add_module(self, module: ModuleType, place: Place) -> None:
        """Visit what the globals of an imported module hold."""
        self._queue(vars(module).values(), deep=place is Place.OWN)
        self._run()

    def _run(self) -> None:
        while self._waiting:
            step = self._waiting.popleft()
            if type(step.held) in _PLAIN or id(step.held) in self._seen or len(self._seen) >= MAX_OBJECTS:
                continue
            if not _is(step.held, type):
                self._seen[id(step.held)] = step.held
            self._visit(step)

    def _visit(self, step: _Step) -> None:
        held, inside = step.held, list[Any]()
        if _is(held, ModuleType):
            self._add_namespace(vars(held), None, step.packages)
        elif _is(held, type):
            self._visit_class(held, step)
        elif _is(held, *_FUNCTIONS):
            for function in _functions(held):
                self._add_namespace(function.__globals__, function, step.packages)
                inside += _inside(function)
        elif _is(held, MethodType):
            inside = [held.__func__, held.__self__]
        else:
            network = _is_network(held)
            self._visit_class(type(held), step._replace(packages=step.packages or network))
            inside = [*_attributes(held), *_elements(held)]
            if network and step.deep:
                self.networks.append(held)
                inside = [*_parts(held), *inside]
        if step.deep:
            self._queue(inside)

    def _visit_class(self, kind: type, step: _Step) -> None:
        """Visit a class. It is located by the files of its own functions, since another module can have the name in
        `__module__`."""
        for base in kind.__mro__:
            name, known = vars(base).get("__module__"), id(base) in self._seen
            if known and (not step.packages or id(base) in self._with_packages):
                continue
            self._seen[id(base)] = base
            if step.packages:
                self._with_packages.add(id(base))
            methods = [part for part in vars(base).values() if isinstance(part, _FUNCTIONS)]
            functions = [function for method in methods for function in _functions(method)]
            written = [function for function in functions if self._file_of(function.__globals__, function)]
            places = {
                self._add_namespace(f.__globals__, f, step.packages and f.__globals__.get("__name__") == name)
                for f in written
            }
            if isinstance(name, str) and not any(function.__module__ == name for function in written):
                loaded = sys.modules.get(name)
                namespace = vars(loaded) if isinstance(loaded, ModuleType) else {"__name__": name}
                places.add(self._add_namespace(namespace, None, step.packages))
            if not known and (place := max(places, default=Place.FIXED)) is not Place.FIXED:
                self._queue(vars(base).values(), deep=step.deep and place is Place.OWN)

    def _add_namespace(self, names: dict[str, Any], function: FunctionType | None, packages: bool) -> Place:
        """Add the module whose globals are `names`, and the file that contains the source of one of its functions."""
        name, file = names.get("__name__"), self._file_of(names, None)
        places = [self._add_file(name if isinstance(name, str) else "", file, names, packages)]
        if function is not None and (other := self._file_of({}, function)) and other != file:
            # A program compiled the text of a file itself, or the module has no `__file__`.
            places.append(self._add_file(name if isinstance(name, str) else Path(other).stem, other, names, False))
        return max(places)

    def _add_file(self, name: str, file: str, names: dict[str, Any], packages: bool) -> Place:
        if packages and name:
            self.names.add(name)
        if not file or not name:
            return Place.FIXED
        key = id(names), file
        if key not in self._namespaces:
            self._namespaces[key] = place = self._place(name, file)
            loaded = sys.modules.get(name)
            if place is Place.FIXED:
                pass
            elif isinstance(loaded, ModuleType) and self._file_of(vars(loaded), None) == file:
                self.names.add(name)
            else:
                self.by_path[file], self._namespaces[key] = name, Place.OWN
                self._queue(names.values())
        return self._namespaces[key]

    def _file_of(self, names: dict[str, Any], function: FunctionType | None) -> str:
        """Return the file that the globals of a module name, else the file that a function was compiled from; "" if
        there is none."""
        path = names.get("__file__")
        if not isinstance(path, str):
            path = function.__code__.co_filename if function is not None else ""
        if path not in self._existing:
            self._existing[path] = _existing(os.path.abspath(path)) if path else ""
        return self._existing[path]

    def _queue(self, held: Iterable[Any], deep: bool = True) -> None:
        self._waiting.extend(_Step(one, deep=deep) for one in list(held))


def networks_of(model: Any) -> list[Any]:
    """Return the outermost networks that a model holds outside its `module`. Their parameters are not hashed anywhere
    else."""
    walk = Walk(lambda name, file: Place.FIXED)
    walk.add_model(model)
    inside = {id(part) for part in _parts(model.module)} if model.module is not None else set()
    below = {id(part) for one in walk.networks for part in _parts(one)[1:]}
    return [one for one in walk.networks if id(one) not in inside | below]


def _is(held: Any, *kinds: type) -> bool:
    """`isinstance` by the type alone. Proxy objects would answer `isinstance` with their own code."""
    return issubclass(type(held), kinds)


def _is_network(held: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and _is(held, torch.nn.Module)


def _parts(network: Any) -> list[Any]:
    try:
        return list(network.modules())
    except Exception:  # third-party classes may raise any exception
        return [network]


def _functions(held: Any) -> Iterator[FunctionType]:
    """Yield the functions behind a function, method or property, including those wrapped by decorators."""
    if isinstance(held, property):
        pending = [held.fget, held.fset, held.fdel]
    else:
        pending = [held.__func__ if isinstance(held, staticmethod | classmethod) else held]
    seen = set[int]()
    while pending:
        function = pending.pop()
        if isinstance(function, FunctionType) and id(function) not in seen:
            seen.add(id(function))
            yield function
            pending.append(vars(function).get("__wrapped__"))


def _inside(function: FunctionType) -> list[Any]:
    """Return what a function holds: default values, closure variables and attributes."""
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return [*defaults, *(function.__closure__ or ()), *vars(function).values()]


def _existing(file: str) -> str:
    """Return the file if it or an archive that contains it exists, else ""."""
    return file if os.path.isfile(file) or any(place.is_file() for place in Path(file).parents) else ""


def _attributes(held: Any) -> list[Any]:
    """Return the values of an object's attributes without running any code of the object."""
    values = list[Any]()
    with suppress(AttributeError, TypeError, RuntimeError):
        values += object.__getattribute__(held, "__dict__").values()
    for kind in type(held).__mro__:
        for slot in vars(kind).values() if "__slots__" in vars(kind) else ():
            if isinstance(slot, MemberDescriptorType):
                with suppress(AttributeError):
                    values.append(slot.__get__(held, kind))
    return values


def _elements(held: Any) -> list[Any]:
    """Return the elements of a container, a partial function or a closure cell."""
    if _is(held, dict):
        return [*islice(dict.keys(held), MAX_ELEMENTS), *islice(dict.values(held), MAX_ELEMENTS)]
    kinds: tuple[Any, ...] = (list, tuple, set, frozenset, deque)
    for kind in kinds:
        if _is(held, kind):
            return list(islice(kind.__iter__(held), MAX_ELEMENTS))
    if _is(held, partial):
        return [held.func, *held.args, *held.keywords.values()]
    if _is(held, CellType):
        with suppress(ValueError):  # the cell is still empty
            return [held.cell_contents]
    return []
